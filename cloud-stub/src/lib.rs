//! The small cloud: organisation, versions, image import, bundles, rollouts,
//! broker and HTTP API.

#![forbid(unsafe_code)]

pub mod api;
pub mod architecture;
pub mod broker;
pub mod chunks;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod db;
pub mod image;
pub mod ingest;
pub mod keys;
pub mod limits;
pub mod metrics;
pub mod mqtt;
pub mod node_config;
pub mod rollout;
pub mod selector;
pub mod server;
pub mod template;
pub mod unused_layers;
pub mod version;
pub mod view;
