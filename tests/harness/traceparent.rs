//! The W3C `traceparent` header, read and written independently of the code under test.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// One version 00 `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits: the span that sent it.
    pub span_id: String,
    /// Bit 0: sampled.
    pub flags: u8,
}

impl Traceparent {
    /// A sampled caller that no other test has.
    #[must_use]
    pub fn sampled() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let process = u64::from(std::process::id());
        Self {
            trace_id: format!("{:016x}{number:016x}", 0xabcd_0000_0000_0000 | process),
            span_id: format!("{:016x}", 0x1234_0000_0000_0000 | number),
            flags: 1,
        }
    }

    /// A caller that has decided against recording.
    #[must_use]
    pub fn unsampled() -> Self {
        Self { flags: 0, ..Self::sampled() }
    }

    /// Reads the value of a header.
    ///
    /// # Panics
    /// When it is not a valid one.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let fields: Vec<&str> = text.split('-').collect();
        let [version, trace_id, span_id, flags] = fields[..] else {
            panic!("not a traceparent: {text:?}");
        };
        let hex = |field: &str, length| {
            field.len() == length
                && field.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && field.bytes().any(|b| b != b'0')
        };
        assert_eq!(version, "00", "{text:?}");
        assert!(hex(trace_id, 32) && hex(span_id, 16) && flags.len() == 2, "{text:?}");
        let flags = u8::from_str_radix(flags, 16).expect("two hex digits");
        Self { trace_id: trace_id.into(), span_id: span_id.into(), flags }
    }

    /// Whether the sampled bit is set.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}
