//! The place in the code that a span comes from, as attributes.
//!
//! A place never changes, and most spans come from a few of them: each thread keeps what it has
//! encoded, and forgets it where another place takes its slot.

use std::{cell::RefCell, ptr};

use plugin_api::telemetry::Callsite;

use crate::{
    otlp::{self, Place},
    record::Record,
    semconv,
};

/// How many places a thread keeps.
const SLOTS: usize = 64;

thread_local! {
    static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// The attributes of one place.
#[derive(Clone, Default)]
struct Kept {
    place: Option<Callsite>,
    attributes: u32,
    bytes: Vec<u8>,
}

/// Adds the attributes of this place.
pub(crate) fn record(record: &mut Record, callsite: &Callsite) {
    let added = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.is_empty() {
            kept.resize(SLOTS, Kept::default());
        }
        let slot = (callsite.file().as_ptr().addr() ^ callsite.line() as usize) % SLOTS;
        let kept = &mut kept[slot];
        if !kept.place.is_some_and(|place| is_same(&place, callsite)) {
            *kept = encode(callsite);
        }
        record.encoded(kept.attributes, &kept.bytes);
    });
    // Where a thread ends nothing is kept any more.
    if added.is_err() {
        let Kept { attributes, bytes, .. } = encode(callsite);
        record.encoded(attributes, &bytes);
    }
}

/// Whether both are the same texts of the program, not only equal ones.
fn is_same(one: &Callsite, other: &Callsite) -> bool {
    one.line() == other.line()
        && ptr::eq(one.file(), other.file())
        && ptr::eq(one.module(), other.module())
        && ptr::eq(one.name(), other.name())
}

fn encode(callsite: &Callsite) -> Kept {
    let (mut attributes, mut bytes) = (0, Vec::new());
    if !callsite.file().is_empty() {
        otlp::text(&mut bytes, Place::Span, semconv::CODE_FILE_PATH, callsite.file());
        otlp::number(&mut bytes, Place::Span, semconv::CODE_LINE_NUMBER, callsite.line().into());
        attributes += 2;
    }
    if !callsite.module().is_empty() {
        let parts = [callsite.module(), "::", callsite.name()];
        otlp::concat(&mut bytes, Place::Span, semconv::CODE_FUNCTION_NAME, &parts);
        attributes += 1;
    }
    Kept { place: Some(*callsite), attributes, bytes }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use plugin_api::{Context, Level};
    use prost::Message as _;

    use super::*;
    use crate::{record::Kind, testing::attributes};

    fn told(callsite: &Callsite) -> Vec<String> {
        let mut record = Record::begin(Kind::Internal, &Context::default(), None, "", 1);
        super::record(&mut record, callsite);
        let span = Span::decode(record.fields()).unwrap();
        attributes(&span)
    }

    #[test]
    fn places_that_take_each_other_s_slot_are_told_apart() {
        let callsite = |name| Callsite::new(Level::INFO, "tests", name);
        for _ in 0..2 {
            for name in ["one", "two"] {
                let wanted = ["code.file.path=f.rs", "code.line.number=7"].map(str::to_owned);
                let function = format!("code.function.name=module::{name}");
                let found = told(&callsite(name).at("module", "f.rs", 7));
                assert_eq!(found, [&wanted[..], &[function]].concat());
            }
            assert_eq!(told(&callsite("nowhere")), [""; 0]);
        }
    }
}
