//! What happens inside the host: the spans and events of its code, told to a plugin as plain data.
//!
//! The host's `tracing` spans cross as [`Telemetry::on_span`] and a [`Span`] that is told what is
//! added and is dropped when the span closes; its log lines as [`Telemetry::on_event`]. What is less
//! serious than the levels that the plugin asks for never crosses. All text is borrowed for the call,
//! but for that of a [`Callsite`], which lives as long as the process.

use abi_stable::{StableAbi, std_types::RStr};

pub use crate::fields::{FieldBuffer, Fields, Value};
use crate::{context::Context, host::Level};

/// The place in the host's code that a span or an event comes from.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Callsite {
    name: RStr<'static>,
    target: RStr<'static>,
    module: RStr<'static>,
    file: RStr<'static>,
    line: u32,
    level: Level,
    reserved: [u64; 2],
}

impl Callsite {
    /// A callsite of this name in this part of the host; the place in the code is unknown until set.
    #[must_use]
    pub const fn new(level: Level, target: &'static str, name: &'static str) -> Self {
        Self {
            name: RStr::from_str(name),
            target: RStr::from_str(target),
            module: RStr::from_str(""),
            file: RStr::from_str(""),
            line: 0,
            level,
            reserved: [0; 2],
        }
    }

    /// The same callsite at this place.
    #[must_use]
    pub const fn at(self, module: &'static str, file: &'static str, line: u32) -> Self {
        Self { module: RStr::from_str(module), file: RStr::from_str(file), line, ..self }
    }

    /// The span's name; of an event, one that says where it is.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.as_str()
    }

    /// The part of the host that speaks, usually a module path.
    #[must_use]
    pub fn target(&self) -> &'static str {
        self.target.as_str()
    }

    /// The module path; empty when it is unknown.
    #[must_use]
    pub fn module(&self) -> &'static str {
        self.module.as_str()
    }

    /// The source file; empty when it is unknown.
    #[must_use]
    pub fn file(&self) -> &'static str {
        self.file.as_str()
    }

    /// The line in the file; 0 when it is unknown.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// How serious it is.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }
}

/// A span that begins.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct SpanHead<'a> {
    callsite: &'a Callsite,
    fields: Fields<'a>,
    reserved: [u64; 2],
}

impl<'a> SpanHead<'a> {
    /// A span of this callsite with these fields.
    #[must_use]
    pub const fn new(callsite: &'a Callsite, fields: Fields<'a>) -> Self {
        Self { callsite, fields, reserved: [0; 2] }
    }

    /// Where it comes from.
    #[must_use]
    pub const fn callsite(&self) -> &'a Callsite {
        self.callsite
    }

    /// The fields that have a value already.
    #[must_use]
    pub const fn fields(&self) -> Fields<'a> {
        self.fields
    }
}

/// Something that happened: a line of the host's log.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Event<'a> {
    callsite: &'a Callsite,
    message: RStr<'a>,
    fields: Fields<'a>,
    reserved: [u64; 2],
}

impl<'a> Event<'a> {
    /// An event of this callsite.
    #[must_use]
    pub const fn new(callsite: &'a Callsite, message: &'a str, fields: Fields<'a>) -> Self {
        Self { callsite, message: RStr::from_str(message), fields, reserved: [0; 2] }
    }

    /// Where it comes from.
    #[must_use]
    pub const fn callsite(&self) -> &'a Callsite {
        self.callsite
    }

    /// What is said; empty when there are only fields.
    #[must_use]
    pub fn message(&self) -> &'a str {
        self.message.as_str()
    }

    /// The fields, without the message.
    #[must_use]
    pub const fn fields(&self) -> Fields<'a> {
        self.fields
    }
}

/// What is made of a span that begins.
#[derive(Debug)]
pub struct Begun<S> {
    /// The context of what happens inside of the span.
    pub context: Context,
    /// What follows the span; `None` when it is not recorded.
    pub span: Option<S>,
}

/// Hears of what happens inside the host. Its methods are called on any thread, many at once, and
/// delay the code that they tell of.
pub trait Telemetry: Send + Sync + 'static {
    /// What follows a recorded span.
    type Span: Span;

    /// The least serious spans that are told, and the least serious events that are told to their
    /// span; `None`: none. Asked once.
    fn span_level(&self) -> Option<Level> {
        Some(Level::INFO)
    }

    /// The least serious events that are told to [`Telemetry::on_event`]; `None`: none. Asked once.
    fn event_level(&self) -> Option<Level> {
        Some(Level::INFO)
    }

    /// Whether spans below a parent that is not sampled are told too, because they may yet be of
    /// interest. Asked once.
    fn unsampled(&self) -> bool {
        false
    }

    /// A span begins below `parent`: the enclosing span, or the exchange that the code works for; one
    /// without ids where there is neither. Below a parent that is not sampled it is asked only where
    /// [`Telemetry::unsampled`] says so.
    fn on_span(&self, head: &SpanHead<'_>, parent: &Context) -> Begun<Self::Span>;

    /// A line of the log is written in `context`, which has no ids outside of any span.
    fn on_event(&self, event: &Event<'_>, context: &Context);
}

/// Follows a span of the host's code, which is over when this is dropped. It is told by one thread at
/// a time, but not always by the same.
pub trait Span: Send + 'static {
    /// Fields got their values, or new ones.
    fn on_record(&mut self, fields: Fields<'_>);

    /// Something happened inside of the span.
    fn on_event(&mut self, event: &Event<'_>);

    /// The span goes on with what the span of this context began.
    fn on_follows_from(&mut self, context: &Context);
}
