//! `/openapi.json`: what there is, in the words of OpenAPI 3.1.

use serde_json::Value;

use super::{Dialect, dialect};

const NATIVE: &str = include_str!("openapi/native.json");

/// Where what a dialect adds belongs.
const PLACES: [(&str, &str); 3] = [
    ("paths", "/paths"),
    ("schemas", "/components/schemas"),
    ("securitySchemes", "/components/securitySchemes"),
];

/// The description of the native endpoints and of these dialects.
pub(super) fn of(dialects: &[Dialect]) -> Value {
    let mut document: Value = serde_json::from_str(NATIVE).expect("it is JSON");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for text in dialects.iter().filter_map(|one| dialect::document(*one)) {
        let mut part: Value = serde_json::from_str(text).expect("it is JSON");
        for (name, place) in PLACES {
            let all = document.pointer_mut(place).and_then(Value::as_object_mut);
            if let (Some(all), Value::Object(more)) = (all, part[name].take()) {
                all.extend(more);
            }
        }
    }
    document
}
