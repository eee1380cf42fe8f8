//! *Input and Error Streams*, the writing half: W25, W26, and what else an application prints.

use crate::support::probe::{Implementation, Probe, full_disk};

fn writing(code: &str) -> Probe {
    Probe::new(&format!(
        "
        import sys
        def raised(function):
            try:
                function()
            except Exception as error:
                return error
        def application(environ, start_response):
            errors = environ['wsgi.errors']
            answer = {code}
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr(answer).encode()]
        "
    ))
}

#[test]
fn w25_errors_has_write_writelines_and_flush_and_goes_to_the_log() {
    writing("[errors.write('one\\n'), errors.writelines(['two\\n', 'three\\n']), errors.flush()]")
        .both(|response| {
            assert_eq!(response.text(), "[4, None, None]");
            assert_eq!(response.log, "one\ntwo\nthree\n");
        });
}

#[test]
fn w25_what_has_no_line_end_is_not_lost() {
    writing("errors.write('half a line')")
        .both(|response| assert_eq!(response.log.trim_end(), "half a line"));
    // The next message in the log belongs to another request.
    assert_eq!(writing("errors.write('half a line')").run().log, "half a line\n");
}

#[test]
fn w26_errors_takes_any_unicode_without_raising() {
    let response = writing(r"errors.write('\u20ac \ud800 \x00')").run();
    assert_eq!(response.log, "\u{20ac} \\ud800 \0\n");
    assert_eq!(response.text(), "5");
}

#[test]
fn w25_the_buffer_takes_all_kinds_of_bytes() {
    let response = writing(
        "[errors.buffer.write(data) for data in (b'a', bytearray(b'b'), memoryview(b'c'))]",
    )
    .run();
    assert_eq!((response.log.as_str(), response.text().as_str()), ("abc\n", "[1, 1, 1]"));
}

#[test]
fn w25_errors_and_its_buffer_are_streams_of_python() {
    for (expression, answer) in [
        (
            "[isinstance(errors, io.TextIOBase), isinstance(errors.buffer, io.BufferedIOBase)]",
            "[True, True]",
        ),
        (
            "[(s.readable(), s.writable(), s.seekable(), s.isatty(), s.closed) for s in (errors, \
             errors.buffer)]",
            "[(False, True, False, False, False), (False, True, False, False, False)]",
        ),
        (
            "[errors.encoding, errors.errors, errors.newlines, errors.line_buffering, errors.name, \
             errors.mode]",
            "['utf-8', 'backslashreplace', None, True, '<stderr>', 'w']",
        ),
        (
            "[errors.fileno(), errors.buffer.fileno(), errors.buffer.name, errors.buffer.mode]",
            "[2, 2, '<stderr>', 'wb']",
        ),
        (
            "[fails(s, n) for s in (errors, errors.buffer) for n in ('read', 'readline', 'tell')]",
            "[True, True, True, True, True, True]",
        ),
        (
            "[fails(errors.buffer, n) for n in ('read1', 'readlines', '__next__', 'truncate', \
             'detach')]",
            "[True, True, True, True, True]",
        ),
        (
            "[errors.close(), errors.closed, errors.buffer.close(), errors.write('open')]",
            "[None, False, None, 4]",
        ),
        (
            "[errors.buffer.__enter__() is errors.buffer, errors.buffer.__exit__(None, None, \
             None)]",
            "[True, None]",
        ),
    ] {
        let fails = "lambda s, n: isinstance(raised(getattr(s, n)), OSError)";
        let response =
            writing(&format!("(lambda io, fails: {expression})(__import__('io'), {fails})")).run();
        assert_eq!(response.text(), answer, "{expression}: {}", response.log);
    }
    let lines = writing(
        "errors.buffer.writelines([b'one\\n', bytearray(b'two\\n'), memoryview(b'three')])",
    )
    .run();
    assert_eq!((lines.text().as_str(), lines.log.as_str()), ("None", "one\ntwo\nthree\n"));
}

#[test]
fn w25_text_is_refused_by_the_buffer_and_bytes_by_the_stream() {
    for call in ["errors.buffer.write('text')", "errors.write(b'bytes')"] {
        assert_eq!(writing(call).run().codes(), ["W0501"], "{call}");
    }
}

#[test]
fn c42_printed_output_goes_to_the_log_and_never_into_the_response() {
    let response = writing(
        "[print('printed'), sys.stderr.write('error\\n'), __import__('os').system('echo child')]",
    )
    .run();
    assert_eq!(response.text(), "[None, 6, 0]");
    assert_eq!(response.log, "printed\nerror\nchild\n");
}

#[test]
fn w26_a_full_log_disk_fails_no_application() {
    let probe = writing(
        "[errors.write('lost\\n'), print('lost'), sys.stderr.write('lost\\n'), errors.flush()]",
    );
    let output = probe.command(Implementation::Wsgate).stderr(full_disk()).output().unwrap();
    assert!(
        output.stdout.ends_with(b"[5, None, 5, None]"),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(output.status.success());
}

#[test]
fn a_stream_that_is_closed_stays_open_for_the_others() {
    let response = writing("[sys.stdout.close(), errors.write('still here\\n')]").run();
    assert_eq!(response.log, "still here\n");
}
