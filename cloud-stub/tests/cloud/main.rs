//! The cloud from outside and from inside. One program for all, since each
//! takes as long to link as the cloud itself.

#![allow(clippy::unwrap_used)]

mod api;
mod broker;
mod carried;
mod chunks;
mod cli;
mod cloud_support;
mod image_hostile;
mod image_layers;
mod image_sources;
mod image_support;
mod image_tools;
mod logs;
mod mosquitto;
mod sites;
mod template_check;
mod template_fields;
mod version_compile;
