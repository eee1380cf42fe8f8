//! The role of a filter: a request with a file of the web server's as a second input, `FCGI_DATA`
//! (FastCGI 1.0, 6.4).
//!
//! A filter says nothing before its body is over, so the body is waited for and put aside before
//! the application is called. The file comes straight from the connection then; what of it is in
//! the way of a response is put spool, too.

use std::{io, sync::Arc};

use crate::{
    process::forks::Descriptor,
    transport::{
        fastcgi::{
            FastCgiConnection, ConnectionShared,
            incoming::{Current, Incoming, log_broken},
        },
        spool::Spool,
    },
    wsgi::BodySource,
};

/// The second input of a request, as far as it has come.
#[derive(Default)]
pub(super) struct FileInput {
    /// Bytes still to come, if that is known.
    left: Option<u64>,
    announced: u64,
    received: u64,
    pub(super) over: bool,
    spool: Spool,
}

/// The file of a filter.
pub(crate) struct File {
    shared: Arc<ConnectionShared>,
}

impl FastCgiConnection {
    /// Is the request that was begun last one for a filter?
    pub(crate) fn is_for_filter(&self) -> bool {
        self.shared.incoming().filters
    }

    /// The file of the request that was begun last, if that is one for a filter. `length` is what
    /// `FCGI_DATA_LENGTH` says.
    pub(crate) fn file(&self, length: Option<u64>) -> Option<File> {
        let mut incoming = self.shared.incoming();
        if !incoming.filters {
            return None;
        }
        incoming.file = Some(FileInput {
            left: length,
            announced: length.unwrap_or(0),
            ..FileInput::default()
        });
        Some(File { shared: self.shared.clone() })
    }

    /// Waits until the whole body is here. Tells whether it came to its end; if not, nobody waits
    /// for a response.
    ///
    /// # Errors
    /// `Interrupted` if a signal came first, `TimedOut` at the deadline of the request.
    pub(crate) fn await_body(&self) -> io::Result<bool> {
        let mut incoming = self.shared.incoming();
        let Some(mut current) = incoming.current.take() else {
            return Ok(false);
        };
        let awaited = incoming.await_body(&self.shared.socket, &mut current);
        let is_over = current.stream_over;
        incoming.current = Some(current);
        match awaited {
            Err(error)
                if [io::ErrorKind::Interrupted, io::ErrorKind::TimedOut]
                    .contains(&error.kind()) =>
            {
                Err(error)
            }
            Err(error) => {
                log_broken(&error);
                Ok(false)
            }
            Ok(()) => Ok(is_over),
        }
    }
}

impl BodySource for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let socket = self.shared.socket_of_ours()?;
        let mut incoming = self.shared.incoming();
        let (Some(mut current), Some(mut file)) = (incoming.current.take(), incoming.file.take())
        else {
            return Ok(0);
        };
        let got = incoming.read_file(socket, &mut current, &mut file, into);
        incoming.current = Some(current);
        incoming.file = Some(file);
        got
    }

    fn length(&self) -> Option<u64> {
        self.shared.incoming().file.as_ref().and_then(|file| file.left.map(|_| file.announced))
    }
}

impl Incoming {
    fn await_body(&mut self, socket: &Descriptor, current: &mut Current) -> io::Result<()> {
        while !current.stream_over && !current.aborted {
            self.put_content_aside(current)?;
            if !self.unread.is_empty() {
                self.body_step(socket, current)?;
                continue;
            }
            match self.wait_for_more(socket) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    current.aborted = true
                }
                waited => waited?,
            }
        }
        Ok(())
    }

    /// Puts the content that is buffered where it belongs: no record of the file comes before the
    /// body is over.
    pub(super) fn put_content_aside(&mut self, current: &mut Current) -> io::Result<()> {
        let content = std::mem::take(&mut self.content);
        match &mut self.file {
            Some(file) if current.stream_over => {
                let count = file.allowed(content.len());
                file.spool.push(&self.buffer[content.start..][..count])?;
                file.account(count);
            }
            _ => {
                let count = current.allowed(content.len());
                current.has_surplus |= count < content.len();
                self.spool.push(&self.buffer[content.start..][..count])?;
                current.account(count);
            }
        }
        Ok(())
    }

    /// Has all input of the request come?
    pub(super) fn inputs_over(&self, current: &Current) -> bool {
        current.stream_over && self.file.as_ref().is_none_or(|file| file.over)
    }

    /// May more of the body or of the file come, so that it could be in the way of a response?
    pub(super) fn inputs_may_go_on(&self, current: &Current) -> bool {
        let file_may = self.file.as_ref().is_some_and(|file| !file.over && file.left != Some(0));
        current.may_go_on() || (file_may && !current.aborted)
    }

    fn read_file(
        &mut self,
        socket: &Descriptor,
        current: &mut Current,
        file: &mut FileInput,
        into: &mut [u8],
    ) -> io::Result<usize> {
        let spool_body = file.spool.pop(into)?;
        if spool_body > 0 {
            return Ok(spool_body);
        }
        loop {
            let allowed = file.allowed(into.len());
            if allowed == 0 {
                return Ok(0);
            }
            if !self.content.is_empty() {
                let count = allowed.min(self.content.len());
                into[..count].copy_from_slice(&self.buffer[self.content.start..][..count]);
                self.content.start += count;
                file.account(count);
                return Ok(count);
            }
            if file.over || current.aborted {
                return file.end();
            }
            if self.unread.is_empty() {
                match self.wait_for_more(socket) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        current.aborted = true
                    }
                    waited => waited?,
                }
            } else {
                // The step finds the end of the file where it looks for it.
                self.file = Some(std::mem::take(file));
                let stepped = self.body_step(socket, current);
                *file = self.file.take().unwrap_or_default();
                stepped?;
            }
        }
    }
}

impl FileInput {
    /// Most bytes that may be read now: never more than `FCGI_DATA_LENGTH`.
    fn allowed(&self, wanted: usize) -> usize {
        match self.left {
            Some(left) => usize::try_from(left).map_or(wanted, |left| left.min(wanted)),
            None => wanted,
        }
    }

    fn account(&mut self, count: usize) {
        self.received += count as u64;
        if let Some(left) = &mut self.left {
            *left -= count as u64;
        }
    }

    /// The stream is over before the announced length, or where it may be (FastCGI 1.0, 6.4: a part
    /// is not the whole).
    fn end(&self) -> io::Result<usize> {
        match self.left {
            None if self.over => Ok(0),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "the file of the filter ended after {} of {} bytes",
                    self.received, self.announced
                ),
            )),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the connection ended after {} bytes of the filter's file", self.received),
            )),
        }
    }
}
