//! `size.json`: bytes of what is flashed.

use anyhow::Result;
use serde_json::{Value, json};
use wherry_tests::host::binary;

pub fn measure() -> Result<Value> {
    let bytes = std::fs::metadata(binary("wherry")?)?.len();
    println!("size of the node's binary: {:.2} MB", bytes as f64 / 1e6);
    Ok(json!({ "wherry_bytes": bytes }))
}
