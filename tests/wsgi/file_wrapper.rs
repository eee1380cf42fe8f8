//! *Optional Platform-Specific File Handling*: W54, W55.

use std::fs;

use crate::support::probe::{Implementation, Probe};

/// An application that answers with what `expression` is worth; `wrapper` is `wsgi.file_wrapper`,
/// `path` a file whose content is `0123456789` a thousand times.
fn wrapping(headers: &str, expression: &str) -> Probe {
    let probe = Probe::new(&format!(
        "
        import gzip, io, tempfile
        class Closing:
            def __init__(self, file):
                self.file = file
            def read(self, size):
                return self.file.read(size)
            def close(self):
                print('closed')
        def moved(file, offset):
            file.seek(offset)
            return file
        def application(environ, start_response):
            wrapper, path = environ['wsgi.file_wrapper'], 'data'
            start_response('200 OK', [('Content-Type', 'text/plain')] + {headers})
            return {expression}
        "
    ));
    fs::write(probe.directory().join("data"), "0123456789".repeat(1000)).unwrap();
    probe
}

fn whole() -> String {
    "0123456789".repeat(1000)
}

#[test]
fn w54_the_wrapper_takes_a_file_and_a_block_size_and_iterates() {
    for expression in [
        "wrapper(open(path, 'rb'))",
        "wrapper(open(path, 'rb'), 7)",
        "wrapper(filelike=open(path, 'rb'), blksize=7)",
        "wrapper(open(path, 'rb', buffering=0))",
        "wrapper(io.BytesIO(open(path, 'rb').read()))",
        "[b''.join(wrapper(open(path, 'rb'), 10))]",
        "(block for block in wrapper(open(path, 'rb')))",
    ] {
        wrapping("[]", expression)
            .both(|response| assert_eq!(response.text(), whole(), "{expression}"));
    }
}

#[test]
fn w54_close_reaches_the_file_and_nothing_leaves_before_the_return() {
    let response = wrapping("[]", "wrapper(Closing(open(path, 'rb')))").run();
    assert_eq!((response.body.len(), response.log.as_str()), (10_000, "closed\n"));
    let dropped = wrapping("[]", "[wrapper(open(path, 'rb')) and b'only this']");
    dropped.both(|response| assert_eq!(response.text(), "only this"));
    let without_close =
        "wrapper(type('F', (), {'read': lambda self, n, f=iter([b'ab']): next(f, b'')})())";
    wrapping("[]", without_close).both(|response| assert_eq!(response.text(), "ab"));
}

#[test]
fn w55_a_file_is_sent_from_where_it_stands() {
    for expression in [
        "wrapper(moved(open(path, 'rb'), 9995))",
        "wrapper(moved(open(path, 'rb', buffering=0), 9995))",
        // Reading a little fills the buffer, so that the descriptor stands elsewhere than the file.
        "(lambda file: file.seek(9990) and file.read(5) and wrapper(file))(open(path, 'rb'))",
    ] {
        let response = wrapping("[]", expression).run();
        assert_eq!(
            (response.text().as_str(), response.header("Content-Length")),
            ("56789", Some("5")),
            "{expression}"
        );
    }
}

#[test]
fn w55_content_length_is_honoured() {
    let short = wrapping("[('Content-Length', '4')]", "wrapper(open(path, 'rb'))").run();
    assert_eq!((short.text().as_str(), short.codes().as_slice()), ("0123", &["W0505"][..]));
    let long = wrapping("[('Content-Length', '10001')]", "wrapper(open(path, 'rb'))").run();
    assert_eq!((long.body.len(), long.codes().as_slice()), (10_000, &["W0504"][..]));
}

#[test]
fn w55_a_part_of_a_file_that_its_status_announces_makes_no_log_message() {
    let code = "
        import io
        def application(environ, start_response):
            headers = [('Content-Type', 'text/plain'), ('Content-Length', '4'), ('Content-Range', \
            'bytes 10-13/10000')]
            write = start_response('206 Partial Content', headers)
            file = open('data', 'rb')
            if environ['PATH_INFO'] == '/memory':
                file = io.BytesIO(file.read())
            file.seek(10)
            if environ['PATH_INFO'] == '/written':
                write(file.read(2))
            return environ['wsgi.file_wrapper'](file)
        ";
    for path in ["", "/memory", "/written"] {
        let probe = Probe::new(code).variable("PATH_INFO", path);
        fs::write(probe.directory().join("data"), "0123456789".repeat(1000)).unwrap();
        let response = probe.run();
        assert_eq!(
            (response.text().as_str(), response.log.as_str(), response.exit.code()),
            ("0123", "", Some(0)),
            "{path}"
        );
    }
    // A body that is too short is an error for any other iterable.
    let list = code.replace("environ['wsgi.file_wrapper'](file)", "[file.read()]");
    let probe = Probe::new(&list);
    fs::write(probe.directory().join("data"), "0123456789".repeat(1000)).unwrap();
    assert_eq!(probe.run().codes(), ["W0505"]);
}

#[test]
fn w54_a_wrapper_seeks_and_tells_as_its_file_does() {
    for (expression, body) in [
        (
            "[repr((w.seekable(), w.tell(), w.seek(7), w.tell(), w.seek(-1, 2))).encode()]",
            "(True, 0, 7, 7, 9999)",
        ),
        ("w.seek(9997) and w", "789"),
        ("w.seek(9997) and next(w) and w.seek(9999) and w", "9"),
        ("[b'%d %s' % (w.blksize, w.filelike.read(3))]", "8192 012"),
    ] {
        let wrapped = format!("(lambda w: {expression})(wrapper(open(path, 'rb')))");
        let response = wrapping("[]", &wrapped).run();
        assert_eq!((response.text().as_str(), response.log.as_str()), (body, ""), "{expression}");
    }
    for (file, seekable) in [
        ("type('F', (), {'read': None})()", "False"),
        ("type('F', (), {'read': None, 'seek': None, 'tell': None})()", "True"),
        ("type('F', (), {'seekable': lambda s: False, 'seek': None, 'tell': None})()", "False"),
        ("__import__('subprocess').Popen(['true'], stdout=-1).stdout", "False"),
    ] {
        let response = wrapping("[]", &format!("[str(wrapper({file}).seekable()).encode()]")).run();
        assert_eq!(response.text(), seekable, "{file}");
    }
}

#[test]
fn w55_an_iteration_that_has_begun_is_continued_not_sent_again() {
    let expression = "(lambda w: next(w) and w)(wrapper(open(path, 'rb'), 9000))";
    wrapping("[]", expression).both(|response| assert_eq!(response.body.len(), 1000));
}

#[test]
fn w55_a_file_whose_descriptor_holds_something_else_is_read() {
    let code = "
        import gzip, io
        def application(environ, start_response):
            with gzip.open('packed', 'wb') as file:
                file.write(b'unpacked ' * 3)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return environ['wsgi.file_wrapper'](gzip.open('packed', 'rb'))
        ";
    Probe::new(code).both(|response| assert_eq!(response.text(), "unpacked ".repeat(3)));
    let pipe = "wrapper(__import__('subprocess').Popen(['echo', 'from a pipe'], stdout=-1).stdout)";
    wrapping("[]", pipe).both(|response| assert_eq!(response.text(), "from a pipe\n"));
    // Files of the kernel's have a size of zero.
    let kernel =
        wrapping("[]", "wrapper(open('/proc/self/cmdline', 'rb'))").run_on(Implementation::Wsgate);
    assert!(kernel.text().contains("wsgate: cgi"), "{}", kernel.text());
    // Or one that is not that of their content.
    let system = wrapping("[]", "wrapper(open('/sys/devices/system/cpu/online', 'rb'))")
        .run_on(Implementation::Wsgate);
    assert_eq!(
        (system.text().as_bytes(), system.log.as_str()),
        (std::fs::read("/sys/devices/system/cpu/online").unwrap().as_slice(), "")
    );
    let unflushed = "(lambda file: file.write(b'just written') and file.seek(0) == 0 and \
        wrapper(file))(tempfile.TemporaryFile())";
    wrapping("[]", unflushed).both(|response| assert_eq!(response.text(), "just written"));
}

#[test]
fn w55_a_text_file_is_refused_and_an_empty_file_is_empty() {
    let text = wrapping("[]", "wrapper(open(path))").run();
    assert_eq!(
        (text.status.as_str(), text.codes().as_slice()),
        ("500 Internal Server Error", &["W0503"][..])
    );
    wrapping("[]", "wrapper(open('/dev/null', 'rb'))")
        .both(|response| assert_eq!(response.text(), ""));
}

#[test]
fn w57_a_head_request_for_a_file_gets_its_length_alone() {
    let response =
        wrapping("[]", "wrapper(open(path, 'rb'))").variable("REQUEST_METHOD", "HEAD").run();
    assert_eq!(
        (response.body.as_slice(), response.header("Content-Length")),
        (&b""[..], Some("10000"))
    );
    assert_eq!(response.log, "");
}

#[test]
fn w55_a_file_too_large_for_memory_arrives_whole() {
    let probe = wrapping("[]", "wrapper(open('large', 'rb'))");
    let large: Vec<u8> = (0..30_000_000_u32).map(|index| (index % 251) as u8).collect();
    fs::write(probe.directory().join("large"), &large).unwrap();
    assert!(probe.run().body == large);
}
