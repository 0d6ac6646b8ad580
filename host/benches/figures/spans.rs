//! How many spans an export has, without decoding them.

/// The spans of an `ExportTraceServiceRequest`: its field 1 is `ResourceSpans`, whose field 2 is
/// `ScopeSpans`, whose field 2 is a span. What is not protobuf has none.
pub(crate) fn count(request: &[u8]) -> u64 {
    let spans = |scope| messages(scope, 2).count() as u64;
    let scopes = |resource| messages(resource, 2).map(spans).sum::<u64>();
    messages(request, 1).map(scopes).sum()
}

/// The messages in the fields of this number.
fn messages(mut bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        loop {
            let key = varint(&mut bytes)?;
            // Nothing but length-delimited fields stands above a span, and the dropped counts within.
            let field = match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                    continue;
                }
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let (field, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    field
                }
                _ => return None,
            };
            if key >> 3 == number {
                return Some(field);
            }
        }
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
