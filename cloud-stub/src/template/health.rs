//! Probes and `lifecycle.preStop` of a container. What a node does with them:
//! `wherry_bundle::health`.

use wherry_bundle::health::{Check, PreStop, Probe, Probes};
use wherry_bundle::limits::{GRACE_SECONDS_MAX, PROBE_COUNT_MAX, PROBE_SECONDS_MAX};
use wherry_bundle::model::Port;

use super::place::{Object, Place};
use super::shapes;

/// Kubernetes' defaults.
const PERIOD_SECONDS: u32 = 10;
const TIMEOUT_SECONDS: u32 = 1;
const FAILURE_THRESHOLD: u32 = 3;

/// The probes of a container that has `ports`, by whose names they may go.
pub(super) fn probes(object: &Object<'_>, ports: &[Port]) -> Option<Probes> {
    let read = |field: &str, once: bool| object.optional(field, |place| probe(place, ports, once));
    let startup = read("startupProbe", true);
    let liveness = read("livenessProbe", true);
    let readiness = read("readinessProbe", false);
    Some(Probes { startup: startup?, liveness: liveness?, readiness: readiness? })
}

/// What is done before the stop signal; `Some(None)` is nothing.
pub(super) fn pre_stop(object: &Object<'_>, ports: &[Port]) -> Option<Option<PreStop>> {
    let Some(lifecycle) = object.get("lifecycle") else { return Some(None) };
    let Some(place) = lifecycle.object(&shapes::LIFECYCLE)?.get("preStop") else {
        return Some(None);
    };
    let handler = place.object(&shapes::LIFECYCLE_HANDLER)?;
    let Some(sleep) = handler.get("sleep") else {
        return Some(Some(PreStop::Run(check(&handler, ports, "sleep, exec")?)));
    };
    if ["exec", "httpGet", "tcpSocket"].iter().any(|field| handler.get(field).is_some()) {
        place.problem("has more than one handler");
    }
    let seconds = sleep.object(&shapes::SLEEP)?.require("seconds")?;
    let seconds = seconds.int(0, i64::from(GRACE_SECONDS_MAX))?;
    Some(Some(PreStop::Sleep { seconds }))
}

fn probe(place: &Place<'_>, ports: &[Port], once: bool) -> Option<Probe> {
    let object = place.object(&shapes::PROBE)?;
    let seconds = |field: &str, least: i64, default: u32| {
        object.get(field).map_or(Some(default), |place| place.int(least, PROBE_SECONDS_MAX.into()))
    };
    let initial_delay_seconds = seconds("initialDelaySeconds", 0, 0);
    let period_seconds = seconds("periodSeconds", 1, PERIOD_SECONDS);
    let timeout_seconds = seconds("timeoutSeconds", 1, TIMEOUT_SECONDS);
    let count = |field: &str, default: u32| {
        object.get(field).map_or(Some(default), |place| place.int(1, PROBE_COUNT_MAX.into()))
    };
    let success_threshold = count("successThreshold", 1);
    if let Some(place) = object.get("successThreshold")
        && once
        && success_threshold != Some(1)
    {
        place.problem("must be 1 for a startup or liveness probe");
    }
    let failure_threshold = count("failureThreshold", FAILURE_THRESHOLD);
    let check = check(&object, ports, "exec");
    Some(Probe {
        check: check?,
        initial_delay_seconds: initial_delay_seconds?,
        period_seconds: period_seconds?,
        timeout_seconds: timeout_seconds?,
        success_threshold: success_threshold?,
        failure_threshold: failure_threshold?,
    })
}

/// Exactly one of the handlers; `others` are named before `httpGet` and
/// `tcpSocket` when there is none.
fn check(object: &Object<'_>, ports: &[Port], others: &str) -> Option<Check> {
    let handlers = ["exec", "httpGet", "tcpSocket"].map(|field| object.get(field));
    match handlers {
        [Some(place), None, None] => {
            let args = place.object(&shapes::EXEC_ACTION)?.require("command")?;
            let words = args.texts();
            if words.is_empty() {
                args.problem("is empty");
            }
            Some(Check::Exec { args: words })
        }
        [None, Some(place), None] => http_get(&place, ports),
        [None, None, Some(place)] => {
            let port = port(&place.object(&shapes::TCP_SOCKET)?.require("port")?, ports)?;
            Some(Check::TcpConnect { port })
        }
        [None, None, None] => {
            object.place().problem(format!("needs one of {others}, httpGet and tcpSocket"));
            None
        }
        _ => {
            object.place().problem("has more than one handler");
            None
        }
    }
}

fn http_get(place: &Place<'_>, ports: &[Port]) -> Option<Check> {
    let object = place.object(&shapes::HTTP_GET)?;
    let port = object.require("port").and_then(|place| port(&place, ports));
    let path = object.get("path").map_or(Some("/".to_owned()), |place| {
        let path = place.text()?;
        let plain = path.chars().all(|c| c.is_ascii_graphic());
        if !path.starts_with('/') || !plain {
            place.problem("must be a plain path that begins with /");
        }
        Some(path)
    });
    if let Some(place) = object.get("scheme")
        && place.text().is_some_and(|scheme| scheme != "HTTP")
    {
        place.problem("only HTTP is supported: use exec with a client of the image for HTTPS");
    }
    let headers: Vec<Option<(String, String)>> =
        object.get("httpHeaders").iter().flat_map(Place::items).map(|p| header(&p)).collect();
    let headers = headers.into_iter().collect::<Option<Vec<_>>>();
    Some(Check::HttpGet { port: port?, path: path?, headers: headers? })
}

fn header(place: &Place<'_>) -> Option<(String, String)> {
    let object = place.object(&shapes::HTTP_HEADER)?;
    let name = object.require("name").and_then(|place| place.text());
    let value = object.require("value").and_then(|place| place.text());
    let (name, value) = (name?, value?);
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != ':');
    if !is_name || !value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        place.problem("a header must be plain ASCII on one line");
    }
    Some((name, value))
}

/// A number, or the name of one of the container's own ports.
fn port(place: &Place<'_>, ports: &[Port]) -> Option<u16> {
    let super::yaml::Value::Text(name) = place.value() else { return place.int(1, 65_535) };
    let found = ports.iter().find(|port| port.name == *name && !name.is_empty());
    if found.is_none() {
        place.problem(format!("this container has no port of the name `{name}`"));
    }
    found.map(|port| port.container_port)
}
