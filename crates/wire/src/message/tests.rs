//! Every message of this crate: its round trip, and bytes that are not one.

use proptest::prelude::*;

use super::*;
use crate::{
    app::App,
    check::{CodeLocation, Findings, FirstRequest, Loaded, Sharing, SideEffect, Validation},
    launch::{Launch, LogSettings, RequestFds, Venv, WarmUp, Work},
    offload::{Offload, OffloadHeader},
    report::{Report, StopReason},
    request::{Greeting, ProcessState, RequestFollows, RequestMessage, ResponseFormat},
    template::{TemplateCommand, TemplateEvent},
    trusted_proxies::{ProxyHeader, TrustedProxies, network},
};

fn request() -> RequestMessage {
    RequestMessage {
        id: "0123456789abcdef".into(),
        line: "GET /".into(),
        response_format: ResponseFormat::NonParsed,
        timeout_seconds: 30,
        response_timeout_seconds: 300,
        process: Some(ProcessState {
            environment: vec![(b"QUERY_STRING".to_vec(), b"\xff=1".to_vec())],
            working_directory: b"/srv/\xff".to_vec(),
            umask: 0o027,
        }),
    }
}

fn launch() -> Launch {
    Launch {
        work: Work::Cgi(RequestFds { body_fd: 3, response_fd: 4 }),
        app: App::in_file("/srv/caf\u{e9}.wsgi"),
        sys_path: vec![b"/srv/\xff".to_vec()],
        pycache_prefix: None,
        venv: Some(Venv { directory: b"/srv/venv".to_vec(), version: Some("3.11".into()) }),
        skipped_venv: Some("`/srv/.venv` is not used".into()),
        debug: true,
        log: LogSettings {
            is_json: true,
            pool: "caf-".into(),
            has_time: true,
            has_priority: false,
            sends_request_id: true,
        },
        request: RequestMessage { process: None, ..request() },
        warm_up: Some(WarmUp { target: "/".into(), seconds: 30 }),
        after_fork: Some("site.telemetry:start".into()),
        script_name: Some("/app".into()),
        proxies: TrustedProxies {
            networks: vec![network("10.0.0.0/8").unwrap(), network("::1").unwrap()],
            headers: ProxyHeader::ALL.to_vec(),
        },
        offload: Some(Offload {
            header: OffloadHeader::AccelRedirect { location: "/protected/".into() },
            directory: b"/srv/\xff".to_vec(),
        }),
        gateway_pid: 4711,
        report_fd: 5,
        gateway_pipe_fd: Some(6),
    }
}

fn side_effects() -> Vec<SideEffect> {
    vec![SideEffect {
        what: "opened a file".into(),
        is_threads: false,
        sharing: Sharing::OneProcess,
        origin: Some(CodeLocation {
            module: "a".into(),
            file: b"/srv/\xff.py".to_vec(),
            line: 1,
            through: Some("b".into()),
        }),
    }]
}

fn findings() -> Findings {
    Findings {
        python_version: "3.11.2".into(),
        executable: "/usr/bin/python3".into(),
        prefix: "/usr".into(),
        in_venv: false,
        sys_path: vec!["/srv".into()],
        import_time: std::time::Duration::from_millis(7),
        loaded: Ok(Loaded {
            callable: "application".into(),
            kind: "function".into(),
            files: vec![b"/srv/\xff.py".to_vec()],
            first_request: FirstRequest {
                target: "/a?b".into(),
                status: "500 Internal Server Error".into(),
                messages: "wsgate: error[W0501]: no\n".into(),
                is_complete: true,
            },
            validation: Validation::Invalid("no".into()),
            request_time: std::time::Duration::ZERO,
            threads: 2,
            side_effects: side_effects(),
            generators: vec!["module `a`".into()],
        }),
    }
}

/// The message comes back; cut, of another build or kind, or with a byte too many it is refused.
fn survives<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = encode(message).unwrap();
    assert_eq!(decode::<M>(&bytes).as_ref(), Ok(message));
    for length in 0..bytes.len() {
        assert!(decode::<M>(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    assert_eq!(decode::<M>(&[&bytes[..], b"x"].concat()), Err(DecodeError::Damaged));
    let mut other = bytes.clone();
    other[MAGIC.len()..KIND_AT].fill(0);
    other[MAGIC.len()..][..10].copy_from_slice(b"0.0.9+feed");
    assert_eq!(decode::<M>(&other), Err(DecodeError::OtherBuild("0.0.9+feed".into())));
    let mut other = bytes.clone();
    other[KIND_AT..LENGTH_AT].copy_from_slice(&99_u32.to_le_bytes());
    assert_eq!(decode::<M>(&other), Err(DecodeError::OtherKind(99)));
    let mut other = bytes;
    other[0] ^= 1;
    assert_eq!(decode::<M>(&other), Err(DecodeError::NoMessage));
}

#[test]
fn every_message_comes_back_and_every_part_of_one_is_refused() {
    survives(&launch());
    survives(&request());
    survives(&Greeting { pid: 4711, stale: false });
    survives(&RequestFollows);
    survives(&Report::OneProcess("module `a` (line 1) opened a file".into()));
    survives(&StopReason::HungUp);
    survives(&TemplateCommand::Fork { block: u32::MAX });
    survives(&TemplateEvent::WorkerExited { pid: i32::MAX, status: i32::MIN });
    survives(&findings());
    survives(&side_effects());
}

#[test]
fn a_packet_has_one_length_and_is_filled_up_with_zero_bytes() {
    for event in [
        TemplateEvent::Ready,
        TemplateEvent::WorkerStarted { block: u32::MAX, pid: i32::MIN },
        TemplateEvent::WorkerExited { pid: i32::MIN, status: i32::MIN },
    ] {
        let packet = encode_packet(&event).unwrap();
        assert_eq!(decode_packet(&packet), Ok(event));
        for length in 0..packet.len() {
            assert!(decode_packet::<TemplateEvent>(&packet[..length]).is_err(), "{length}");
        }
        let longer = [&packet[..], &[0]].concat();
        assert_eq!(decode_packet::<TemplateEvent>(&longer), Err(DecodeError::Damaged));
        let mut stray = packet;
        stray[PACKET_BYTES - 1] = 1;
        assert_eq!(decode_packet::<TemplateEvent>(&stray), Err(DecodeError::Damaged));
    }
}

#[test]
fn a_length_beyond_the_message_is_refused() {
    let mut bytes = encode(&Greeting { pid: 1, stale: false }).unwrap();
    bytes[LENGTH_AT..HEADER_BYTES].fill(0xff);
    assert_eq!(decode::<Greeting>(&bytes), Err(DecodeError::Damaged));
}

#[test]
fn a_name_of_the_build_fits_the_header() {
    assert!(build().len() <= BUILD_BYTES, "{}", build());
}

fn refuses_or_reads(bytes: &[u8]) {
    let _ = decode::<Launch>(bytes);
    let _ = decode::<RequestMessage>(bytes);
    let _ = decode::<Greeting>(bytes);
    let _ = decode::<StopReason>(bytes);
    let _ = decode::<Findings>(bytes);
    let _ = decode::<Vec<SideEffect>>(bytes);
    let _ = decode_packet::<TemplateCommand>(bytes);
    let _ = decode_packet::<TemplateEvent>(bytes);
    let _ = Report::decode(bytes);
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        refuses_or_reads(&bytes);
    }

    #[test]
    fn a_hostile_payload_behind_a_right_header_never_panics(
        kind in 0_u32..16,
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = [&[0; HEADER_BYTES], &payload[..]].concat();
        write_header(&mut bytes, Kind::Launch, payload.len()).unwrap();
        bytes[KIND_AT..LENGTH_AT].copy_from_slice(&kind.to_le_bytes());
        refuses_or_reads(&bytes);
    }

    #[test]
    fn a_changed_byte_is_refused_or_read_and_never_a_panic(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&launch()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        refuses_or_reads(&bytes);
    }
}
