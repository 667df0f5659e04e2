//! The application that demo and tests deploy: a bus (mosquitto), and a web
//! service of two containers (nginx in front of a lion, over 127.0.0.1) that
//! needs the bus.

use crate::package::{Component, Package};

/// The web service's port on the gateway.
pub const WEB_PORT: u16 = 8080;
/// The bus' port on the gateway.
pub const BUS_PORT: u16 = 1884;

/// One version of the application; the default is a good one.
#[derive(Clone, Debug)]
pub struct Shop<'a> {
    /// `X.Y.Z`.
    pub number: &'a str,
    /// The image of the lion; its version is what HTTP answers show.
    pub lion: &'a str,
    pub replicas: u16,
    /// How long a pod runs until it counts, in seconds: its programs have to
    /// answer by then.
    pub min_ready_seconds: u16,
    /// The text of `lion.properties`.
    pub properties: &'a str,
    /// How long it has to run to be good.
    pub stable_seconds: u32,
    /// What a readiness probe asks of the web service, over HTTP.
    pub ready_path: Option<&'a str>,
    /// Without progress for so long it has failed.
    pub deadline_seconds: u32,
    /// More environment of the lion: name and value.
    pub env: &'a [(&'a str, &'a str)],
}

impl Default for Shop<'_> {
    fn default() -> Self {
        Self {
            number: "1.0.0",
            lion: "lion:1.0.0",
            replicas: 2,
            min_ready_seconds: 1,
            properties: "mane=long\n",
            stable_seconds: 2,
            ready_path: None,
            deadline_seconds: 600,
            env: &[],
        }
    }
}

impl Shop<'_> {
    /// As a version package.
    #[must_use]
    pub fn package(&self) -> Package {
        let bus = Component::new("bus", "mosquitto:2.0", bus(self.min_ready_seconds));
        let mut web = Component::new("web", "nginx:1.22", self.web());
        web.start_after = vec!["bus".into()];
        let mut package = Package::new(self.number, vec![bus, web]);
        package.configs = [
            ["lion", "lion.properties", self.properties],
            ["nginx", "nginx.conf", NGINX_CONF],
            ["bus", "mosquitto.conf", MOSQUITTO_CONF],
        ]
        .map(|config| config.map(str::to_owned))
        .to_vec();
        package.stable_seconds = Some(self.stable_seconds);
        package
    }

    fn web(&self) -> String {
        let Self { number, lion, replicas, min_ready_seconds, deadline_seconds, .. } = self;
        let probe = self.ready_path.map_or(String::new(), |path| {
            format!(
                "          readinessProbe:
            httpGet: {{ path: {path}, port: 8000 }}
            periodSeconds: 1
            timeoutSeconds: 5
"
            )
        });
        let env: String = self
            .env
            .iter()
            .map(|(name, value)| {
                format!("            - name: {name}\n              value: \"{value}\"\n")
            })
            .collect();
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: {replicas}
  minReadySeconds: {min_ready_seconds}
  progressDeadlineSeconds: {deadline_seconds}
  selector:
    matchLabels: {{ app: web }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  template:
    metadata:
      labels: {{ app: web }}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: nginx
          ports:
            - containerPort: 8000
              hostPort: {WEB_PORT}
{probe}          resources:
            limits: {{ cpu: 500m, memory: 48Mi }}
          volumeMounts:
            - name: nginx
              mountPath: /etc/nginx
        - name: lion
          image: {lion}
          env:
            - name: LION_VERSION
              value: \"{number}\"
            - name: LION_PROPERTIES
              value: /etc/lion/lion.properties
            - name: LION_NEEDS
              value: bus:1883
{env}          resources:
            limits: {{ cpu: 500m, memory: 32Mi }}
          volumeMounts:
            - name: lion
              mountPath: /etc/lion
              readOnly: true
      volumes:
        - name: nginx
          configMap:
            name: nginx
        - name: lion
          configMap:
            name: lion
"
        )
    }
}

fn bus(min_ready_seconds: u16) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
  name: bus
spec:
  replicas: 1
  minReadySeconds: {min_ready_seconds}
  selector:
    matchLabels: {{ app: bus }}
  template:
    metadata:
      labels: {{ app: bus }}
    spec:
      containers:
        - name: mosquitto
          args: [-c, /etc/mosquitto/mosquitto.conf]
          ports:
            - containerPort: 1883
              hostPort: {BUS_PORT}
          resources:
            limits: {{ cpu: 500m, memory: 32Mi }}
          volumeMounts:
            - name: conf
              mountPath: /etc/mosquitto
      volumes:
        - name: conf
          configMap:
            name: bus
"
    )
}

const MOSQUITTO_CONF: &str = "listener 1883 0.0.0.0\nallow_anonymous true\n";

const NGINX_CONF: &str = "worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log stderr notice;
events { worker_connections 64; }
http {
  access_log /dev/stdout;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  server {
    listen 8000;
    location / { proxy_pass http://127.0.0.1:9000; }
  }
}
";
