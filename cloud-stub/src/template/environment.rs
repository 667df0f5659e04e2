//! A container's variables, and `$(NAME)` in its words.
//!
//! What config maps and secrets say is taken over here; what only the node
//! knows stays open ([`Fact`]). Whether they are there is told by
//! [`super::references`].

use wherry_bundle::model::{Config, ConfigKind, ConfigRef};
use wherry_bundle::{Fact, Word};

use super::place::{Object, Place};
use super::references::Configs;
use super::shapes;

/// What every container engine gives a program that has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// A node has one namespace.
const NAMESPACE: &str = "default";

pub(super) type Variables = Vec<(String, Word)>;

/// Of `envFrom` and `env`, in that order, as in Kubernetes.
pub(super) fn variables(object: &Object<'_>, configs: &Configs) -> Variables {
    let mut env = Variables::new();
    for place in object.get("envFrom").iter().flat_map(Place::items) {
        env.extend(whole_config(&place, configs).unwrap_or_default());
    }
    for place in object.get("env").iter().flat_map(Place::items) {
        let Some(variable) = place.object(&shapes::ENV_VAR) else { continue };
        let name = variable.require("name").and_then(|place| variable_name(&place));
        let value = match (variable.get("value"), variable.get("valueFrom")) {
            (Some(_), Some(source)) => {
                source.problem("has no place beside `value`");
                None
            }
            (Some(value), None) => value.text().map(|text| Some(expand(&text, &env))),
            (None, Some(source)) => value_from(&source, configs),
            (None, None) => Some(Some(Word::default())),
        };
        if let (Some(name), Some(Some(value))) = (name, value) {
            env.push((name, value));
        }
    }
    env
}

/// The image's variables, each overridden by one of the template's.
pub(super) fn merged(image: &[String], own: Variables) -> Variables {
    let split = |word: &String| {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        (name.to_owned(), Word::from(value))
    };
    let mut env: Variables = vec![("PATH".into(), PATH.into())];
    for (name, value) in image.iter().map(split).chain(own) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => env.push((name, value)),
        }
    }
    env
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; what names no
/// variable stays as it is.
pub(super) fn expand(text: &str, env: &[(String, Word)]) -> Word {
    let mut out = Word::default();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push(&rest[..at]);
        rest = &rest[at..];
        let name = rest.strip_prefix("$(").and_then(|tail| tail.split_once(')'));
        let known = name.and_then(|(name, tail)| {
            Some((&env.iter().rev().find(|(known, _)| known == name)?.1, tail))
        });
        if let Some((value, tail)) = known {
            out.append(value);
            rest = tail;
        } else {
            out.push("$");
            rest = rest.strip_prefix("$$").unwrap_or(&rest[1..]);
        }
    }
    out.push(rest);
    out
}

fn variable_name(place: &Place<'_>) -> Option<String> {
    let name = place.text()?;
    if name.is_empty() || name.contains(['=', '\0']) {
        place.problem(format!("`{name}` is not a variable's name"));
        return None;
    }
    Some(name)
}

/// One of `envFrom`: a variable for each key.
fn whole_config(place: &Place<'_>, configs: &Configs) -> Option<Variables> {
    let object = place.object(&shapes::ENV_FROM_SOURCE)?;
    let prefix = object.get("prefix").map_or(Some(String::new()), |place| place.text())?;
    let (source, kind) = match (object.get("configMapRef"), object.get("secretRef")) {
        (Some(source), None) => (source, ConfigKind::ConfigMap),
        (None, Some(source)) => (source, ConfigKind::Secret),
        (_, _) => {
            place.problem("must have one of configMapRef and secretRef");
            return None;
        }
    };
    let named = source.object(match kind {
        ConfigKind::ConfigMap => &shapes::CONFIG_MAP_ENV,
        ConfigKind::Secret => &shapes::SECRET_ENV,
    })?;
    let config = config(&named, kind, configs)?;
    let mut env = Variables::new();
    for (key, bytes) in config.iter().flat_map(|config| &config.files) {
        let name = format!("{prefix}{key}");
        if name.contains('=') {
            source.problem(format!("its key `{key}` cannot be a variable's name"));
        }
        env.push((name, utf8(&source, key, bytes)?));
    }
    Some(env)
}

/// `Some(None)`: it is not there.
fn value_from(place: &Place<'_>, configs: &Configs) -> Option<Option<Word>> {
    let object = place.object(&shapes::ENV_VAR_SOURCE)?;
    let fields = ["fieldRef", "configMapKeyRef", "secretKeyRef"].map(|field| object.get(field));
    match fields {
        [Some(field), None, None] => fact(&field).map(Some),
        [None, Some(key), None] => one_key(&key, ConfigKind::ConfigMap, configs),
        [None, None, Some(key)] => one_key(&key, ConfigKind::Secret, configs),
        _ => {
            place.problem("must have one of fieldRef, configMapKeyRef and secretKeyRef");
            None
        }
    }
}

fn fact(place: &Place<'_>) -> Option<Word> {
    let path = place.object(&shapes::FIELD_REF)?.require("fieldPath")?;
    Some(match path.text()?.as_str() {
        "metadata.name" => Fact::PodName.into(),
        "metadata.namespace" => NAMESPACE.into(),
        "spec.nodeName" => Fact::NodeName.into(),
        "status.podIP" => Fact::PodAddress.into(),
        other => {
            path.problem(format!(
                "`{other}` is not known here: use metadata.name, metadata.namespace, spec.nodeName \
                 or status.podIP"
            ));
            return None;
        }
    })
}

fn one_key(place: &Place<'_>, kind: ConfigKind, configs: &Configs) -> Option<Option<Word>> {
    let object = place.object(match kind {
        ConfigKind::ConfigMap => &shapes::CONFIG_MAP_KEY,
        ConfigKind::Secret => &shapes::SECRET_KEY,
    })?;
    let key = object.require("key")?.text()?;
    let config = config(&object, kind, configs)?;
    match config.and_then(|config| config.files.get(&key)) {
        Some(bytes) => utf8(place, &key, bytes).map(Some),
        None => Some(None),
    }
}

/// The config that `object` names, if it is there.
fn config<'a>(
    object: &Object<'_>,
    kind: ConfigKind,
    configs: &'a Configs,
) -> Option<Option<&'a Config>> {
    let name = object.require("name")?.name()?;
    object.get("optional").map_or(Some(true), |place| place.bool())?;
    Some(configs.get(&ConfigRef { kind, name }))
}

fn utf8(place: &Place<'_>, key: &str, bytes: &[u8]) -> Option<Word> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    if text.is_none() {
        place.problem(format!("what `{key}` holds is not text: mount it as a file instead"));
    }
    text.map(Word::from)
}
