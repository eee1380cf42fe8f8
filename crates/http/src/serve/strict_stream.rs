//! A connection from which hyper reads only requests that are framed as HTTP demands.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::serve::framing::{Framing, Violation};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// What stands in place of headers that are refused: hyper answers it with 400.
const REFUSED: &[u8] = b"\0\r\n\r\n";

/// A connection to a client.
pub(super) struct StrictStream<S> {
    stream: S,
    framing: Framing,
    /// Bytes that were read, of which the first `checked` are right.
    waiting: Vec<u8>,
    checked: usize,
    is_ended: bool,
    violation: Rc<Cell<Option<Violation>>>,
}

impl<S> StrictStream<S> {
    /// Reads requests from `stream`, and says in `violation` why one was refused.
    pub(super) fn new(stream: S, violation: Rc<Cell<Option<Violation>>>) -> Self {
        let (framing, waiting) = (Framing::Headers, Vec::new());
        Self { stream, framing, waiting, checked: 0, is_ended: false, violation }
    }

    fn refuse(&mut self, violation: Violation) -> io::Result<()> {
        self.violation.set(Some(violation));
        self.is_ended = true;
        self.waiting.clear();
        if self.framing != Framing::Headers {
            return Err(io::Error::new(io::ErrorKind::InvalidData, violation));
        }
        self.waiting.extend_from_slice(REFUSED);
        self.checked = REFUSED.len();
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StrictStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.waiting.is_empty()
            && let Some(left) = this.framing.content_left()
        {
            // The content of a body needs no look.
            let length = buffer.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut content = ReadBuf::new(buffer.initialize_unfilled_to(length));
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut content))?;
            let count = content.filled().len();
            this.framing.skip_content(count);
            buffer.advance(count);
            return Poll::Ready(Ok(()));
        }
        while this.checked == 0 && !this.is_ended {
            match this.framing.step(&this.waiting) {
                Err(violation) => this.refuse(violation)?,
                Ok(0) => {
                    let mut bytes = [0; BUFFER_BYTES];
                    let mut more = ReadBuf::new(&mut bytes);
                    ready!(Pin::new(&mut this.stream).poll_read(context, &mut more))?;
                    this.waiting.extend_from_slice(more.filled());
                    if more.filled().is_empty() {
                        // hyper decides about a request that is not complete.
                        this.is_ended = true;
                        this.checked = this.waiting.len();
                    }
                }
                Ok(count) => this.checked = count,
            }
        }
        let count = this.checked.min(buffer.remaining());
        buffer.put_slice(&this.waiting[..count]);
        this.waiting.drain(..count);
        this.checked -= count;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StrictStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
