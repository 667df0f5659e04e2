//! The small cloud: organisation, versions, image import, bundles, rollouts,
//! broker and HTTP API.

#![forbid(unsafe_code)]

pub mod image;
pub mod template;
pub mod version;
