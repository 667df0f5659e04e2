//! One situation a test, and exactly what is done about it.

#![allow(clippy::unwrap_used)]

mod document;
mod ends;
mod health;
mod jobs;
mod order;
mod replacement;
mod scenario;
mod starts;
