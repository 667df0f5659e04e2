//! `wherry-cloud serve`: settings from a file and from the command line,
//! which wins.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::broker_url;
use super::client::CliError;
use crate::server::{BrokerSettings, ServeError, Server, Settings};

const API_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8700);
const MQTT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);
/// Levels of what is logged, as in `info,wherry_cloud=debug`. rumqttd calls
/// each ordinary disconnection an error; the gate tells of those.
const LOG_VARIABLE: &str = "WHERRY_LOG";
const LOG_DEFAULT: &str = "info,rumqttd=off,rumqttc=warn,tracing=off";

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Folder of everything that is kept.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// A file with the same settings, in TOML; see the README.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API listens; it authenticates nobody. [default: 127.0.0.1:8700]
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// Where the embedded broker listens. [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "broker")]
    mqtt_listen: Option<SocketAddr>,
    /// Use this broker instead of the embedded one.
    #[arg(long, env = "WHERRY_CLOUD_BROKER", hide_env_values = true)]
    #[arg(value_name = "mqtt://USER:PASSWORD@HOST:PORT")]
    broker: Option<String>,
    /// Where nodes find the broker, when it is not where it listens.
    #[arg(long, value_name = "HOST[:PORT]")]
    mqtt_public: Option<String>,
}

/// The form of the configuration file; an unknown key is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: Option<PathBuf>,
    api_listen: Option<SocketAddr>,
    mqtt_listen: Option<SocketAddr>,
    broker: Option<String>,
    mqtt_public: Option<String>,
}

impl Serve {
    pub fn run(self) -> Result<(), CliError> {
        let settings = self.settings()?;
        let filter = env_logger::Env::new().filter_or(LOG_VARIABLE, LOG_DEFAULT);
        env_logger::Builder::from_env(filter).init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(serve(settings)).map_err(|error| CliError::input(error.to_string()))
    }

    fn settings(self) -> Result<Settings, CliError> {
        let file = self.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let data_dir = self
            .data
            .or(file.data)
            .ok_or_else(|| CliError::input("say where to keep everything: --data DIR"))?;
        // What is on the command line replaces either kind in the file.
        let (mqtt_listen, broker) = if self.mqtt_listen.is_some() || self.broker.is_some() {
            (self.mqtt_listen, self.broker)
        } else {
            (file.mqtt_listen, file.broker)
        };
        let broker = match (broker, mqtt_listen) {
            (Some(_), Some(_)) => {
                let what = "either an external broker or the embedded one: `broker` and \
                            `mqtt_listen` exclude each other";
                return Err(CliError::input(what));
            }
            (Some(url), None) => {
                BrokerSettings::External(broker_url::parse(&url).map_err(CliError::input)?)
            }
            (None, listen) => BrokerSettings::Embedded { listen: listen.unwrap_or(MQTT_LISTEN) },
        };
        let default_port = match &broker {
            BrokerSettings::Embedded { listen } => listen.port(),
            BrokerSettings::External(login) => login.port,
        };
        let public_broker = self.mqtt_public.or(file.mqtt_public);
        let public_broker = public_broker
            .map(|text| broker_url::host_and_port(&text, default_port))
            .transpose()
            .map_err(|why| CliError::input(format!("public address of the broker: {why}")))?;
        let api_listen = self.api_listen.or(file.api_listen).unwrap_or(API_LISTEN);
        Ok(Settings { data_dir, api_listen, broker, public_broker })
    }
}

fn read(path: &Path) -> Result<File, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| CliError::File { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| CliError::input(format!("{}: {error}", path.display())))
}

async fn serve(settings: Settings) -> Result<(), ServeError> {
    let signals =
        |kind| signal(kind).map_err(|source| ServeError::Io { path: "signals".into(), source });
    let mut terminate = signals(SignalKind::terminate())?;
    let mut interrupt = signals(SignalKind::interrupt())?;
    let server = Server::start(settings).await?;
    let api = server.api_address();
    log::info!("API on http://{api}");
    if !api.ip().is_loopback() {
        log::warn!(
            "the API authenticates nobody, and {api} is not loopback: put a proxy before it"
        );
    }
    if let Some(mqtt) = server.mqtt_address() {
        log::info!("MQTT on {mqtt}");
    }
    tokio::select! {
        _ = terminate.recv() => log::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => log::info!("SIGINT: stopping"),
    }
    server.stop().await;
    log::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn settings(words: &[&str], file: Option<&str>) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cloud.toml");
        let mut words: Vec<&str> = [&["serve"], words].concat();
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
            words.extend(["--config", path.to_str().unwrap()]);
        }
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.serve.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let file = "data = \"/a\"\napi_listen = \"127.0.0.1:1\"\nmqtt_listen = \"127.0.0.1:2\"\n";
        let both = settings(&["--data", "/b", "--broker", "mqtt://u:p@h"], Some(file)).unwrap();
        assert_eq!(both.data_dir, Path::new("/b"));
        assert_eq!(both.api_listen.port(), 1);
        assert!(matches!(both.broker, BrokerSettings::External(login) if login.host == "h"));
        let defaults = settings(&["--data", "/b"], None).unwrap();
        assert_eq!(defaults.api_listen, API_LISTEN);
        assert!(
            matches!(defaults.broker, BrokerSettings::Embedded { listen } if listen == MQTT_LISTEN)
        );
        let public = settings(&["--data", "/b", "--mqtt-public", "cloud.example"], None).unwrap();
        assert_eq!(public.public_broker, Some(("cloud.example".into(), 1883)));
    }

    #[test]
    fn mistakes_are_named() {
        for (words, file, part) in [
            (&[][..], None, "--data DIR"),
            (&["--data", "/b"], Some("data = \"/a\"\nmqt_listen = \"x\"\n"), "line 2"),
            (&["--data", "/b"], Some("api_listen = \"nowhere\"\n"), "line 1"),
            (&["--data", "/b", "--broker", "h:1"], None, "mqtt://USER"),
            (
                &["--data", "/b"],
                Some("broker = \"mqtt://h\"\nmqtt_listen = \"127.0.0.1:2\"\n"),
                "exclude each other",
            ),
            (&["--data", "/b", "--mqtt-public", "a b"], None, "public address"),
        ] {
            let error = settings(words, file).unwrap_err();
            assert!(error.contains(part), "{words:?} {file:?}: {error}");
        }
    }
}
