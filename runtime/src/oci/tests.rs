use serde_json::Value;

use super::*;
use crate::samples;

/// The sets of capabilities have no order of their own.
fn ordered(mut spec: Value) -> Value {
    let sets = spec["process"]["capabilities"].as_object_mut().unwrap();
    for set in sets.values_mut() {
        let names = set.as_array_mut().unwrap();
        names.sort_by_key(|name| name.as_str().map(str::to_owned));
    }
    spec
}

fn spec_of(container: &ContainerSpec) -> Value {
    let spec = spec(container, 20_000).unwrap();
    ordered(serde_json::to_value(spec).unwrap())
}

/// To accept a change: `WHERRY_BLESS=1 cargo test -p wherry-runtime golden`,
/// then read the difference.
#[test]
fn golden() {
    let found = spec_of(&samples::container());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/config.json");
    if std::env::var_os("WHERRY_BLESS").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&found).unwrap() + "\n").unwrap();
    }
    let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(found, golden);
}

#[test]
fn nothing_is_granted_by_default() {
    let mut container = samples::container();
    container.capabilities = 0;
    let spec = spec_of(&container);
    for (set, names) in spec["process"]["capabilities"].as_object().unwrap() {
        assert_eq!(names.as_array().unwrap().len(), 0, "{set}");
    }
    assert_eq!(spec["process"]["noNewPrivileges"], true);
}

#[test]
fn open_files_are_never_raised_above_the_hosts() {
    let limit = open_files(512).unwrap();
    assert_eq!((limit.soft(), limit.hard()), (512, 512));
}

#[test]
fn an_image_without_a_path_gets_the_usual_one() {
    let mut container = samples::container();
    let env = |spec: &Value| spec["process"]["env"].as_array().unwrap().clone();
    assert_eq!(env(&spec_of(&container))[0], DEFAULT_PATH);
    container.env = crate::proto::join_words(["PATH=/only"]).unwrap();
    assert_eq!(env(&spec_of(&container)), ["PATH=/only"]);
}
