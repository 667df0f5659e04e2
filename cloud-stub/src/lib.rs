//! The small cloud: organisation, versions, image import, bundles, rollouts,
//! broker and HTTP API.

#![forbid(unsafe_code)]

pub mod broker;
pub mod clock;
pub mod db;
pub mod image;
pub mod keys;
pub mod limits;
pub mod selector;
pub mod template;
pub mod version;
pub mod view;
