//! Where a span begins or an event happens.

use plugin_api::Context;

use super::known::Known;

/// Where something happens.
pub(super) enum Place {
    /// In a span that the plugin knows.
    Span(Known),
    /// In a context whose span is not known, or not asked for; it has no ids where there is none.
    Context(Context),
}

impl Place {
    pub(super) fn context(&self) -> &Context {
        match self {
            Self::Span(span) => span.context(),
            Self::Context(context) => context,
        }
    }

    pub(super) const fn span(&self) -> Option<&Known> {
        match self {
            Self::Span(span) => Some(span),
            Self::Context(_) => None,
        }
    }

    pub(super) fn into_span(self) -> Option<Known> {
        match self {
            Self::Span(span) => Some(span),
            Self::Context(_) => None,
        }
    }
}
