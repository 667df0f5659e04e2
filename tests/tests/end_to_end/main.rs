//! End to end on this machine: the cloud, its broker and nodes, real images and
//! containers.

#![allow(clippy::unwrap_used)]

mod containers;
mod demo;
mod footprint;
mod images;
mod jobs;
mod quotas;
mod refusals;
mod rollback;
mod services;
mod survival;
mod transfers;
mod upgrades;
mod volumes;
