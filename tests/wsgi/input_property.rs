//! Whatever sequence of calls is made, `wsgi.input` gives what `io.BytesIO` over the same bytes
//! gives.

use proptest::prelude::*;

use crate::support::probe::Probe;

/// Replays the calls in the query string on both, and says where they part.
const COMPARING: &str = "
    import io
    def application(environ, start_response):
        length = int(environ['CONTENT_LENGTH'])
        body = bytes((i * i + i // 7) % 13 + (10 if i % 3 else 0) for i in range(length))
        ours, model = environ['wsgi.input'], io.BytesIO(body)
        answer = 'same'
        for call in environ['QUERY_STRING'].split('&'):
            name, _, argument = call.partition('=')
            arguments = [int(argument)] if argument else []
            if name == 'next':
                got, expected = next(ours, None), next(model, None)
            else:
                got, expected = getattr(ours, name)(*arguments), getattr(model, name)(*arguments)
            if got != expected:
                answer = '%s: %r in place of %r' % (call, got[:40], expected[:40])
                break
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [answer.encode()]
    ";

fn call() -> impl Strategy<Value = String> {
    let size = prop_oneof![-1_i32..40, 0_i32..9000, 60_000_i32..70_000];
    (
        prop_oneof![Just("read"), Just("readline"), Just("readlines"), Just("next")],
        proptest::option::of(size),
    )
        .prop_map(|(name, size)| match size {
            Some(size) if name != "next" => format!("{name}={size}"),
            _ => name.to_owned(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 120,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn w21_every_sequence_of_calls_is_as_on_bytes_io(
        length in prop_oneof![0_usize..200, 60_000_usize..140_000],
        calls in proptest::collection::vec(call(), 1..30),
    ) {
        let ten = |i: usize| if i.is_multiple_of(3) { 0 } else { 10 };
        let byte = |i: usize| ((i * i + i / 7) % 13 + ten(i)) as u8;
        let body: Vec<u8> = (0..length).map(byte).collect();
        let probe = Probe::new(COMPARING).post(body);
        let response = probe.variable("QUERY_STRING", calls.join("&")).run();
        prop_assert_eq!(response.text(), "same");
    }
}
