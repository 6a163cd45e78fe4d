//! `/openapi.json`: what there is, in the words of OpenAPI 3.1.

use serde_json::{Map, Value};

use super::Dialect;

const NATIVE: &str = include_str!("openapi/native.json");

/// The description of the native endpoints and of these dialects.
pub(super) fn of(dialects: &[Dialect]) -> Value {
    let mut document: Value = serde_json::from_str(NATIVE).expect("it is JSON");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for text in dialects.iter().filter_map(|dialect| part(*dialect)) {
        let mut part: Value = serde_json::from_str(text).expect("it is JSON");
        for (place, path) in [("paths", "/paths"), ("schemas", "/components/schemas")] {
            if let (Some(all), Value::Object(more)) = (
                document.pointer_mut(path).and_then(Value::as_object_mut),
                part[place].take(),
            ) {
                merge(all, more);
            }
        }
    }
    document
}

fn merge(all: &mut Map<String, Value>, more: Map<String, Value>) {
    all.extend(more);
}

/// What a dialect adds; nothing for the native one.
fn part(_dialect: Dialect) -> Option<&'static str> {
    None
}
