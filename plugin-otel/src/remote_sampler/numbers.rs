//! Numbers in what sampling servers say.

use serde_json::Value;

/// A share, from 0 to 1. As with protobuf's JSON, an absent number is 0.
pub(super) fn ratio(part: &Value, name: &str) -> Result<f64, String> {
    number(part, name).and_then(|ratio| {
        let wanted = || format!("{name}: wanted a number from 0 to 1, found {ratio}");
        (ratio <= 1.0).then_some(ratio).ok_or_else(wanted)
    })
}

/// A number of 0 or more; an absent one is 0.
pub(super) fn number(part: &Value, name: &str) -> Result<f64, String> {
    let Some(value) = part.get(name) else { return Ok(0.0) };
    let number = value.as_f64().filter(|number| *number >= 0.0);
    number.ok_or_else(|| format!("{name}: wanted a number of 0 or more"))
}
