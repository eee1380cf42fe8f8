//! The three lints of the field around a page of Flask and a page of Django: `wsgiref.validate`,
//! WebTest's and Werkzeug's.

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    support::web_servers::venv,
};

/// `/LINT/FRAMEWORK/page`, where what is not asked for is not imported.
const PAGES: &str = "
    import glob, sys, warnings
    sys.path[:0] = glob.glob('VENV/lib/python3*/site-packages')

    def with_validate(application):
        from wsgiref.validate import validator
        return validator(application)

    def with_webtest(application):
        from webtest.lint import middleware
        return middleware(application)

    def with_werkzeug(application):
        from werkzeug.middleware.lint import HTTPWarning, LintMiddleware, WSGIWarning
        warnings.simplefilter('error', HTTPWarning)
        warnings.simplefilter('error', WSGIWarning)
        return LintMiddleware(application)

    def with_flask():
        from flask import Flask, request
        page = Flask('page')
        # Without a limit it reads without a size, which wsgiref.validate forbids.
        page.config['MAX_CONTENT_LENGTH'] = 1 << 20
        @page.route('/page', methods=['GET', 'POST'])
        def show():
            request.environ['wsgi.errors'].write('shown by flask\\n')
            return 'flask ' + request.form.get('name', request.args.get('q', 'nobody'))
        @page.route('/stream')
        def stream():
            return page.response_class((b'%d,' % n for n in range(100)), mimetype='text/plain')
        return page

    def with_django():
        import django
        from django.conf import settings
        from django.http import HttpResponse, StreamingHttpResponse
        from django.urls import path
        def show(request):
            request.environ['wsgi.errors'].write('shown by django\\n')
            return HttpResponse('django ' + request.POST.get('name', request.GET.get('q', \
            'nobody')))
        def stream(request):
            return StreamingHttpResponse((b'%d,' % n for n in range(100)), \
            content_type='text/plain')
        settings.configure(ALLOWED_HOSTS=['*'], ROOT_URLCONF=(path('page', show), path('stream', \
        stream)), MIDDLEWARE=[])
        django.setup()
        from django.core.handlers.wsgi import WSGIHandler
        return WSGIHandler()

    FRAMEWORKS, LINTED = {}, {}
    def application(environ, start_response):
        if environ['PATH_INFO'] == '':
            start_response('204 No Content', [])
            return []
        _, lint, framework, page = environ['PATH_INFO'].split('/')
        if framework not in FRAMEWORKS:
            FRAMEWORKS[framework] = globals()['with_' + framework]()
        if (lint, framework) not in LINTED:
            LINTED[lint, framework] = globals()['with_' + lint](FRAMEWORKS[framework])
        environ['SCRIPT_NAME'] += '/%s/%s' % (lint, framework)
        environ['PATH_INFO'] = '/' + page
        return LINTED[lint, framework](environ, start_response)

    for framework in PRELOADED:
        FRAMEWORKS[framework] = globals()['with_' + framework]()
    ";

#[test]
fn lints_find_nothing_around_a_page_of_flask_or_django_in_any_mode() {
    let code = PAGES.replace("VENV", venv().to_str().unwrap());
    for mode in MODES {
        let preloaded = if mode == Mode::Cold { "()" } else { "('flask', 'django')" };
        let code = code.replace("PRELOADED", preloaded);
        let mut served = ServedApp::start(mode, &[], &code);
        let mut pages = 0;
        for lint in ["validate", "webtest", "werkzeug"] {
            for framework in ["flask", "django"] {
                let path = |page: &str| format!("/{lint}/{framework}/{page}");
                let form = [("CONTENT_TYPE", "application/x-www-form-urlencoded")];
                let posted = served.request("POST", &path("page"), &form, b"name=somebody");
                assert_eq!(posted.text(), format!("{framework} somebody"), "{mode:?} {lint}");
                pages += 1;
                if mode == Mode::Cold {
                    continue;
                }
                let page = served.request("GET", &path("page"), &[("QUERY_STRING", "q=you")], b"");
                assert_eq!(page.text(), format!("{framework} you"), "{mode:?} {lint}");
                // Werkzeug's lint takes the length that a response to HEAD announces for the length
                // of what was sent.
                if (lint, framework) != ("werkzeug", "flask") {
                    let response = served.request("HEAD", &path("page"), &[], b"");
                    assert_eq!(
                        (response.status.as_str(), response.text().as_str()),
                        ("200 OK", ""),
                        "{mode:?} {lint} {framework}"
                    );
                    pages += 1;
                }
                let stream = served.request("GET", &path("stream"), &[], b"");
                assert!(
                    stream.text().ends_with(",98,99,"),
                    "{mode:?} {lint} {framework}: {stream:?}"
                );
                pages += 1;
            }
        }
        let log = served.stop();
        let shown = log.lines().filter(|line| line.starts_with("shown by ")).count();
        assert_eq!(shown, pages, "{mode:?}: {log}");
        for word in ["Assertion", "Warning", "Traceback", "wsgate: error", "wsgate: warning"] {
            assert!(!log.contains(word), "{mode:?}: {log}");
        }
    }
}
