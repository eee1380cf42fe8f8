//! A FastCGI connection for the serve loop of a pool.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use wire::{connection_queue::ConnectionHistory, launch::Service, request::ResponseFormat};

use crate::{
    log::Transcript,
    process::forks::Descriptor,
    transport::{
        Connection, Progress, Stage,
        fastcgi::{
            active_request::ActiveRequest,
            body::FastCgiBody,
            cut_response::CutStyle,
            lingering_close::LingeringClose,
            records::Records,
            request::FastCgiRequest,
            response::FastCgiResponse,
            settings::FastCgiSettings,
            shared::{ConnectionState, SharedConnection, WatchedSocket},
            violations::log_violation,
        },
    },
    wsgi::{BodyLength, Interruptible},
};

/// Timeout of the first request. A client that sends nothing for longer is not a web server.
const FRESH_TIME: Duration = Duration::from_millis(500);

/// Maximum number of reads in [`FastCgiConnection::advance`] before other connections are served.
const MAX_READS_IN_A_ROW: usize = 64;

/// A connection from a web server.
pub(crate) struct FastCgiConnection {
    shared: Arc<SharedConnection>,
    opened: Instant,
}

impl FastCgiConnection {
    fn is_fresh(&self) -> bool {
        self.opened.elapsed() < FRESH_TIME
    }

    /// Ends sending and starts draining the connection. `is_whole` if the last request and its
    /// response are complete.
    fn linger(&self, state: &mut ConnectionState, is_whole: bool) -> Progress<FastCgiRequest> {
        let Some(lingering) = LingeringClose::begin(self.shared.socket(), is_whole) else {
            return Progress::Close;
        };
        state.lingering = Some(lingering);
        state.records.discard();
        Progress::Wait
    }
}

impl Connection for FastCgiConnection {
    type Settings = FastCgiSettings;
    type Request = FastCgiRequest;
    type Body = FastCgiBody;
    type Response = FastCgiResponse;
    type Buffers = Records;
    type WatchedSocket = WatchedSocket;

    const FORM: ResponseFormat = ResponseFormat::FastCgi;

    fn settings(service: &Service, listeners: &[Descriptor], may_move: bool) -> FastCgiSettings {
        FastCgiSettings::new(service, listeners, may_move)
    }

    fn open(
        socket: Descriptor,
        settings: &FastCgiSettings,
        history: Option<ConnectionHistory>,
        buffers: Option<Records>,
    ) -> Self {
        let records = buffers.unwrap_or_else(|| Records::new(settings.limits()));
        let has_received = history == Some(ConnectionHistory::Used);
        let state = ConnectionState::new(records, settings.socket_timeout(), has_received);
        Self { shared: Arc::new(SharedConnection::new(socket, state)), opened: Instant::now() }
    }

    fn close(self) -> Option<Records> {
        Some(Arc::into_inner(self.shared)?.into_state().records.reset())
    }

    fn socket(&self) -> BorrowedFd<'_> {
        self.shared.socket().as_fd()
    }

    fn watched_socket(&self) -> WatchedSocket {
        WatchedSocket::of(&self.shared)
    }

    fn stage(&self) -> Stage {
        let state = self.shared.state();
        match state.records.partial_since() {
            _ if state.lingering.is_some() => Stage::Lingering,
            Some(since) => Stage::Begun { since, held: state.records.held_bytes() },
            None if state.has_received => Stage::Idle,
            None => Stage::Silent { fresh: self.is_fresh() },
        }
    }

    fn advance(&self) -> Progress<FastCgiRequest> {
        let socket = self.shared.socket();
        let mut state = self.shared.state();
        if let Some(lingering) = &mut state.lingering {
            return if lingering.drain(socket) { Progress::Close } else { Progress::Wait };
        }
        let mut reads = 0;
        loop {
            match state.records.next_request(socket) {
                Ok(Some(request)) => return Progress::Request(request),
                Ok(None) => {}
                // A peer that breaks the protocol, or has closed the connection, gets no response
                // (FastCGI 1.0, 3.3 and 7).
                Err(error) => {
                    log_violation(&error);
                    return self.linger(&mut state, false);
                }
            }
            if state.records.must_close() {
                return self.linger(&mut state, false);
            }
            if reads == MAX_READS_IN_A_ROW {
                break;
            }
            reads += 1;
            match state.records.receive(socket) {
                Ok(Some(0)) | Err(_) => return Progress::Close,
                Ok(Some(_)) => state.has_received = true,
                Ok(None) => break,
            }
        }
        state.records.note_partial_request();
        Progress::Wait
    }

    fn begin(
        &self,
        request: &FastCgiRequest,
        length: BodyLength,
        interruptible: Interruptible,
        transcript: Option<Arc<Transcript>>,
        settings: &FastCgiSettings,
    ) -> (FastCgiBody, FastCgiResponse) {
        let mut state = self.shared.state();
        state.has_served = true;
        state.request = Some(ActiveRequest::new(request, length, interruptible));
        drop(state);
        let cut_style = CutStyle::for_server(request, settings);
        let response =
            FastCgiResponse::new(self.shared.clone(), request.id(), transcript, cut_style);
        (FastCgiBody::of(&self.shared), response)
    }

    fn after_request(&self, request: FastCgiRequest) -> Progress<FastCgiRequest> {
        let mut state = self.shared.state();
        state.records.reuse(request.into_params());
        let was_cut = state.request.take().is_some();
        if was_cut {
            self.linger(&mut state, false)
        } else if state.records.must_close() {
            let is_whole = state.has_body_ended;
            self.linger(&mut state, is_whole)
        } else {
            Progress::Wait
        }
    }

    fn has_unread(&self) -> bool {
        self.shared.state().records.has_unread()
    }

    fn has_pending(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(self.shared.socket(), &mut [0; 1], flags), Ok((1.., _)))
    }

    fn is_keep_alive(&self) -> bool {
        let state = self.shared.state();
        state.has_served && state.lingering.is_none()
    }

    /// Without FCGI_KEEP_CONN, the application closes the connection (FastCGI 1.0, 3.5).
    fn can_close(&self) -> bool {
        let state = self.shared.state();
        (state.has_received || !self.is_fresh())
            && state.lingering.is_none()
            && state.records.is_idle()
            && !self.has_pending()
    }

    fn can_move(&self) -> bool {
        let state = self.shared.state();
        state.lingering.is_none() && state.records.is_idle() && !state.records.must_close()
    }

    fn history(&self) -> ConnectionHistory {
        match self.shared.state().has_received {
            true => ConnectionHistory::Used,
            false if self.is_fresh() => ConnectionHistory::New,
            false => ConnectionHistory::Unused,
        }
    }

    fn is_closed_by_peer(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        !matches!(
            recv(self.shared.socket(), &mut [0; 1], flags),
            Ok((1.., _)) | Err(Errno::AGAIN | Errno::INTR)
        )
    }

    fn awaits_close(&self) -> bool {
        self.shared.state().lingering.as_ref().is_some_and(LingeringClose::is_whole)
    }

    fn is_drained(&self) -> bool {
        let mut state = self.shared.state();
        state.lingering.as_mut().is_some_and(|lingering| lingering.drain(self.shared.socket()))
    }

    fn has_lingered(&self, now: Instant) -> bool {
        self.shared.state().lingering.as_ref().is_some_and(|lingering| lingering.is_over(now))
    }
}
