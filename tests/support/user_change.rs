//! Applications that become another user, which only root may do.

use crate::support::processes::user_and_group_ids;

/// The user that the applications become.
const USER: &str = "54321";

/// Becomes another user while it is loaded, in a fork or for a request, as `WHEN` and the path say.
/// A request whose path ends with `hang` never finishes.
pub(crate) const CHANGES_USER: &str = "
    import os, time
    def leave():
        os.setgroups([])
        os.setresgid(54321, 54321, 54321)
        os.setresuid(54321, 54321, 54321)
    if os.environ.get('WHEN') == 'import':
        leave()
    if os.environ.get('WHEN') == 'fork':
        os.register_at_fork(after_in_child=leave)
    def application(environ, start_response):
        if environ['PATH_INFO'].startswith('/leave'):
            leave()
        while environ['PATH_INFO'].endswith('hang'):
            time.sleep(1)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'served']
    ";

/// Returns whether the process has become the other user.
pub(crate) fn has_changed_user(pid: i32) -> bool {
    user_and_group_ids(pid).first().is_some_and(|user| user == USER)
}
