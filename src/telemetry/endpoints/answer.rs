//! The body of an answer: a text, or pages that are made as the client takes them.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::telemetry::status::Pages;

#[derive(Debug)]
pub(super) enum Answer {
    /// Until it is taken.
    Whole(Option<Bytes>),
    Pages(Pages),
}

impl Answer {
    pub fn whole(text: String) -> Self {
        Self::Whole(Some(text.into()))
    }

    pub fn pages(pages: Pages) -> Self {
        Self::Pages(pages)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(text) => text.take(),
            Self::Pages(pages) => pages.next().map(Bytes::from),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Pages(_) => SizeHint::default(),
        }
    }
}
