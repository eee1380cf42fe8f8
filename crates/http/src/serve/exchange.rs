//! A request to the pool over FastCGI, and its response.

use std::{io, num::NonZero, path::Path};

use fastcgi_server::{
    bodies::{ProtocolStatus, Role},
    client::{ClientConnection, ClientEvent, Request as FastcgiRequest},
};
use http_body_util::BodyExt as _;
use hyper::{
    Response,
    body::{Body, Bytes},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{
        mpsc::{Sender, channel},
        oneshot,
    },
    task::{spawn_local, yield_now},
};

use crate::serve::{body::ResponseBody, cgi_response::ResponseStart};

/// The id of the only request of a connection.
const ID: NonZero<u16> = NonZero::<u16>::MIN;

/// Maximum content of a record in bytes: a multiple of eight, which needs no padding.
const MAX_RECORD_BYTES: usize = 0xfff8;

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Blocks of a response that wait for the client. The pool waits when they are full.
const WAITING_BLOCKS: usize = 4;

/// Why there is no response.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The pool is not there, or has closed the connection.
    NoPool,
    /// The client has not sent the request body as HTTP demands.
    BadRequestBody,
    /// The variables are longer than FastCGI allows.
    TooLong,
    /// The bytes of the pool are no response.
    BadResponse(&'static str),
}

/// The receiving end of a connection to the pool.
struct ResponseReader {
    stream: OwnedReadHalf,
    connection: ClientConnection,
    buffer: Box<[u8]>,
    /// The application has ended the response, or its connection.
    is_ended: bool,
}

/// Sends a request with these variables to the pool at `socket`.
///
/// # Errors
/// Why there is no response.
pub(super) async fn exchange<B>(
    socket: &Path,
    variables: &[(Vec<u8>, Vec<u8>)],
    body: B,
) -> Result<Response<ResponseBody>, ExchangeError>
where
    B: Body<Data = Bytes, Error: Send> + Unpin + 'static,
{
    let mut start = Vec::new();
    let request = FastcgiRequest::new(ID);
    request.append_begin(Role::Responder, false, &mut start);
    let variables = variables.iter().map(|(name, value)| (name, value));
    request.append_params(variables, &mut start).map_err(|_| ExchangeError::TooLong)?;
    let stream = UnixStream::connect(socket).await.map_err(|_| ExchangeError::NoPool)?;
    let (stream, writer) = stream.into_split();
    let (failed, mut is_bad_body) = oneshot::channel();
    spawn_local(async move {
        if let Err(BadBody) = send(writer, start, body).await {
            // Without a receiver, the response has begun.
            let _ = failed.send(());
        }
    });
    let mut reader = ResponseReader {
        stream,
        connection: ClientConnection::new(),
        buffer: vec![0; BUFFER_BYTES].into(),
        is_ended: false,
    };
    let mut received = Vec::new();
    let (start, length) = loop {
        tokio::select! {
            Ok(()) = &mut is_bad_body => return Err(ExchangeError::BadRequestBody),
            more = reader.receive(|bytes| received.extend_from_slice(bytes)) => {
                more.map_err(|_| ExchangeError::NoPool)?;
            }
        }
        match ResponseStart::parse(&received) {
            Err(bad) => return Err(ExchangeError::BadResponse(bad.0)),
            Ok(Some(parsed)) => break parsed,
            Ok(None) if reader.is_ended => return Err(ExchangeError::NoPool),
            Ok(None) => {}
        }
    };
    received.drain(..length);
    let body = if reader.is_ended {
        ResponseBody::text(received)
    } else {
        let (sender, blocks) = channel(WAITING_BLOCKS);
        spawn_local(forward(reader, received.into(), sender));
        ResponseBody::blocks(blocks)
    };
    let mut response = Response::new(body);
    *response.status_mut() = start.status;
    *response.headers_mut() = start.headers;
    Ok(response)
}

/// The client has not sent the whole body, or not as HTTP demands.
struct BadBody;

/// Sends the start of a request and its body. A pool that reads no more of the request may respond
/// all the same. The rest is read and thrown away then: a client that still sends would not read
/// the response.
async fn send<B>(mut pool: OwnedWriteHalf, start: Vec<u8>, mut body: B) -> Result<(), BadBody>
where
    B: Body<Data = Bytes> + Unpin,
{
    let request = FastcgiRequest::new(ID);
    let mut is_read = pool.write_all(&start).await.is_ok();
    let mut records = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BadBody)?.into_data() else { continue };
        for content in data.chunks(MAX_RECORD_BYTES) {
            records.clear();
            request.append_stdin(content, &mut records);
            is_read = is_read && pool.write_all(&records).await.is_ok();
        }
    }
    records.clear();
    request.append_end_of_stdin(&mut records);
    if pool.write_all(&records).await.is_ok() {
        // The pool would take the end of this direction for a client that has disconnected.
        pool.forget();
    }
    Ok(())
}

/// Forwards the body of a response to its client, who may disconnect.
async fn forward(mut reader: ResponseReader, first: Bytes, client: Sender<io::Result<Bytes>>) {
    let mut blocks = vec![first];
    loop {
        for block in blocks.drain(..).filter(|block| !block.is_empty()) {
            if client.send(Ok(block)).await.is_err() {
                return;
            }
        }
        if reader.is_ended {
            return;
        }
        let more = tokio::select! {
            () = client.closed() => return,
            more = reader.receive(|bytes| blocks.push(Bytes::copy_from_slice(bytes))) => more,
        };
        if let Err(error) = more {
            // The client learns that the body is not complete, when hyper has sent all before.
            let _ = client.reserve_many(WAITING_BLOCKS).await.map(drop);
            yield_now().await;
            let _ = client.send(Err(error)).await;
            return;
        }
    }
}

impl ResponseReader {
    /// Waits for more bytes, and passes those of the response to `take`.
    ///
    /// # Errors
    /// If the connection ends before the response.
    async fn receive(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let length = self.stream.read(&mut self.buffer).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = &self.buffer[..length];
        loop {
            let step = self.connection.receive(rest).map_err(io::Error::other)?;
            rest = &rest[step.consumed..];
            match step.event {
                None => return Ok(()),
                Some(ClientEvent::Stdout { bytes, .. }) => take(bytes),
                Some(ClientEvent::End { result, .. }) => {
                    if result.protocol_status != ProtocolStatus::RequestComplete {
                        return Err(io::Error::other("the pool has refused the request"));
                    }
                    self.is_ended = true;
                    return Ok(());
                }
                // The pool writes its log by itself.
                Some(_) => {}
            }
        }
    }
}
