//! Records of a worker, byte for byte (FastCGI 1.0, 3.3 and 5.5).

use crate::support::{
    assertions::complete_response,
    fastcgi_client::{FastcgiConnection, FastcgiRequest, Record},
    pool::{Pool, PoolSetup},
};

/// Responds with as many bytes as its query says, in one block, in two, or as a file.
const LONG: &str = "
    import tempfile
    def application(environ, start_response):
        count, path = int(environ['QUERY_STRING']), environ['PATH_INFO']
        response = bytes(number % 251 for number in range(count))
        start_response('200 OK', [('Content-Type', 'text/plain')])
        if path == '/file':
            file = tempfile.TemporaryFile()
            file.write(response)
            file.seek(0)
            return environ['wsgi.file_wrapper'](file)
        return [response[:count // 2], response[count // 2:]] if path == '/two' else [response]
    ";

fn pool() -> Pool {
    PoolSetup::new(LONG).start()
}

/// The records of the response to a request, whose content is what was asked for.
#[track_caller]
fn records(connection: &mut FastcgiConnection, path: &str, count: usize) -> Vec<Record> {
    connection.send(
        &FastcgiRequest::get(path)
            .param("QUERY_STRING", count.to_string())
            .keep()
            .id(0x0304)
            .bytes(),
    );
    let records = connection.records();
    let stdout: Vec<u8> = records
        .iter()
        .filter(|record| record.header[1] == 6)
        .flat_map(|r| r.content.clone())
        .collect();
    let body: Vec<u8> = (0..count).map(|number| u8::try_from(number % 251).unwrap()).collect();
    assert!(complete_response(&stdout).body == body, "{path} {count}");
    records
}

/// Around the most that a record holds, and far more.
const COUNTS: [usize; 9] = [0, 1, 65_000, 65_527, 65_528, 65_535, 65_536, 131_070, 1_000_003];

#[test]
fn f06_records_of_a_long_response_have_whole_headers_and_at_most_65535_bytes() {
    let pool = pool();
    let mut connection = pool.connect();
    for path in ["/one", "/two", "/file"] {
        for count in COUNTS {
            let records = records(&mut connection, path, count);
            let (end, streams) = records.split_last().unwrap();
            assert_eq!(end.header, [1, 3, 3, 4, 0, 8, 0, 0]);
            for record in streams {
                let [high, low] = u16::try_from(record.content.len()).unwrap().to_be_bytes();
                assert_eq!(record.header, [1, 6, 3, 4, high, low, 0, 0], "{path} {count}");
            }
            let empty = streams.iter().filter(|record| record.content.is_empty()).count();
            assert!(
                empty == 1 && streams.last().unwrap().content.is_empty(),
                "{path} {count}: {empty}"
            );
            // The fewest records for the headers and at most two blocks.
            assert!(streams.len() <= count / 65_528 + 4, "{path} {count}: {}", streams.len());
        }
    }
    pool.stop();
}

#[test]
fn f08_a_worker_pads_nothing_and_divides_long_blocks_at_multiples_of_eight() {
    let pool = pool();
    let mut connection = pool.connect();
    for count in COUNTS {
        let records = records(&mut connection, "/one", count);
        assert!(
            records.iter().all(|record| record.header[6] == 0 && record.padding.is_empty()),
            "{count}"
        );
        let contents: Vec<_> = records.iter().map(|record| record.content.len()).collect();
        // All but the last of a block, the end of the stream and the end of the request.
        let full = &contents[..contents.len() - 3];
        assert!(full.iter().all(|length| *length == 65_528), "{count}: {contents:?}");
    }
    pool.stop();
}

#[test]
fn f29_an_end_request_has_an_app_status_of_four_bytes_a_protocol_status_and_three_reserved_bytes() {
    let mut pool = PoolSetup::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'response'
            if environ['PATH_INFO'] == '/body':
                print('reads')
                yield environ['wsgi.input'].read()
        ",
    )
    .start();
    let mut connection = pool.connect();
    let end = |connection: &mut FastcgiConnection| connection.records().pop().unwrap();
    connection.send(&FastcgiRequest::get("/").keep().id(0x0102).bytes());
    let record = end(&mut connection);
    // FCGI_REQUEST_COMPLETE, as a CGI program that exits with 0.
    assert_eq!(
        (record.header, &record.content[..]),
        ([1, 3, 1, 2, 0, 8, 0, 0], &[0, 0, 0, 0, 0, 0, 0, 0][..])
    );
    // FCGI_UNKNOWN_ROLE.
    connection.send(&FastcgiRequest::get("/").keep().role(4).bytes());
    assert_eq!(end(&mut connection).content, [0, 0, 0, 0, 3, 0, 0, 0]);
    // FCGI_CANT_MPX_CONN for the second, and the first aborted: as a program that did not come to
    // its end.
    let request = FastcgiRequest::post("/body", "body").keep().id(0xffff);
    connection.send(&request.before_body());
    pool.await_log("reads");
    connection.send(&FastcgiRequest::get("/").keep().id(2).bytes());
    let record = end(&mut connection);
    assert_eq!(
        (record.header, &record.content[..]),
        ([1, 3, 0, 2, 0, 8, 0, 0], &[0, 0, 0, 0, 1, 0, 0, 0][..])
    );
    connection.send(&request.abort());
    let record = end(&mut connection);
    assert_eq!(
        (record.header, &record.content[..]),
        ([1, 3, 0xff, 0xff, 0, 8, 0, 0], &[0, 0, 0, 1, 0, 0, 0, 0][..])
    );
    pool.stop();
}
