//! The code with which a script of `wsgate init` gets hold of an application.

use crate::shared_host::{
    init::{Account, hello, is_refused},
    is_root,
};

#[test]
fn a_script_calls_a_factory_with_its_arguments_and_names_each_module() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let user = &account.user;
    user.file("factory/shop/__init__.py", "def create_app(config=None):\n    return config\n");
    for (app, code) in [
        (
            "'factory/shop/__init__.py:create_app(\"prod\")'",
            "from shop import create_app; application = create_app(\"prod\")",
        ),
        (
            "'gone:create_app([1], debug=True)'",
            "from gone import create_app; application = create_app([1], debug=True)",
        ),
        ("gone:sites.app", "from gone import sites; application = sites.app"),
        ("class:app", "import importlib; application = importlib.import_module(\"class\").app"),
    ] {
        assert_eq!(account.code(&format!("public_html --app {app}")), code, "{app}");
    }
    user.file("odd/class.py", &hello("app"));
    user.file("odd/make.wsgi", "def create_app(*a, **b):\n    pass\nclass sites:\n    app = 1\n");
    for (app, code) in [
        ("odd/class.py", "odd/class.py\")[\"app\"]"),
        (
            "'odd/make.wsgi:create_app(\"prod\", debug=True)'",
            "odd/make.wsgi\")[\"create_app\"](\"prod\", debug=True)",
        ),
        ("odd/make.wsgi:sites.app", "odd/make.wsgi\")[\"sites\"].app"),
    ] {
        let found = account.code(&format!("public_html --app {app}"));
        assert!(found.starts_with("import runpy; ") && found.ends_with(code), "{app}: {found}");
    }
}

#[test]
fn arguments_of_a_factory_that_are_no_literals_are_refused() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    account.user.file("odd/make.wsgi", "def create_app(*a, **b):\n    pass\n");
    let before = account.files();
    for (arguments, said) in [
        ("1+1", "`(1+1)` after `create_app` are not literals of Python: `1 + 1` is not a literal"),
        ("open(\"x\")", "is not a literal"),
        ("*[1]", "is not a literal"),
        ("**{}", "`**` is not the name of an argument"),
        ("1)(2", "these are no arguments of one call"),
        ("a=1, a=1", "keyword argument repeated"),
        ("\"prod", "are not literals of Python: "),
    ] {
        for source in ["gone", "odd/make.wsgi"] {
            let ended = account
                .wsgate(&format!("init public_html --app '{source}:create_app({arguments})'"));
            is_refused(&ended, 2, said);
        }
    }
    assert_eq!(account.files(), before);
}
