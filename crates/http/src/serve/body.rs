//! Response bodies: a text, or blocks as they come.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc::Receiver;

use crate::serve::console::RequestLine;

/// The body of a response, and the line about its request. The line is printed when the body ends,
/// or is dropped before its end.
pub(super) struct ResponseBody {
    source: Source,
    /// Bytes that follow on the source.
    suffix: Option<Bytes>,
    line: Option<RequestLine>,
}

/// Where the blocks come from.
enum Source {
    Text(Option<Bytes>),
    /// The channel is closed at the end of the body. An error cuts the response.
    Blocks(Receiver<io::Result<Bytes>>),
}

impl ResponseBody {
    /// A body of one block.
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        let source = Source::Text(Some(text).filter(|text| !text.is_empty()));
        Self { source, suffix: None, line: None }
    }

    /// A body of the blocks that come from `receiver`.
    pub(super) fn blocks(receiver: Receiver<io::Result<Bytes>>) -> Self {
        Self { source: Source::Blocks(receiver), suffix: None, line: None }
    }

    /// This body, followed by `suffix`.
    pub(super) fn with_suffix(self, suffix: Bytes) -> Self {
        Self { suffix: Some(suffix), ..self }
    }

    /// This body, whose end prints `line`.
    pub(super) fn with_line(self, line: RequestLine) -> Self {
        if self.is_end_stream() {
            line.finish();
            return self;
        }
        Self { line: Some(line), ..self }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let body = self.get_mut();
        let block = match &mut body.source {
            Source::Text(text) => text.take().map(Ok),
            Source::Blocks(receiver) => match receiver.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(block) => block,
            },
        };
        let block = block.or_else(|| body.suffix.take().map(Ok));
        let is_end = match &block {
            Some(Ok(_)) => body.is_end_stream(),
            Some(Err(_)) => false,
            None => true,
        };
        if is_end && let Some(line) = body.line.take() {
            line.finish();
        }
        Poll::Ready(block.map(|block| block.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Text(None)) && self.suffix.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Text(text) => {
                let lengths = [text, &self.suffix].map(|it| it.as_ref().map_or(0, Bytes::len));
                SizeHint::with_exact(lengths.iter().sum::<usize>() as u64)
            }
            Source::Blocks(_) => SizeHint::default(),
        }
    }
}
