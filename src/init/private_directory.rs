//! The directory below the home directory for applications, logs and links to wsgate.

use std::{fs, path::Path};

use diagnostics::message::LogMessage;

use crate::{
    init::{quoted, refused},
    system::{document_root, links},
};

/// Checks that the directory `private`, which is below `apps`, can be used or created, and that
/// clients cannot request its files: it is not below `web`, and no link leads to a document root.
///
/// # Errors
/// What stands in the way.
pub(super) fn check(apps: &Path, private: &Path, web: &Path) -> Result<(), LogMessage> {
    let mut directories: Vec<&Path> = private.ancestors().collect();
    directories.reverse();
    let first = directories.iter().find(|directory| !directory.is_dir());
    if let Some((directory, found)) =
        first.and_then(|first| Some((first, fs::symlink_metadata(first).ok()?)))
    {
        if found.is_symlink() {
            return Err(dangling(directory));
        }
        return Err(refused(
            format!(
                "`{}` is not a directory, and a directory of that name is for applications and \
                 logs",
                directory.display()
            ),
            &format!("rename it: mv {0} {0}.old", quoted(directory)),
        ));
    }
    let existing = directories.iter().rfind(|directory| directory.is_dir());
    let Some(existing) = existing else { return Ok(()) };
    let rest = private.strip_prefix(existing).unwrap_or(Path::new(""));
    let resolved = fs::canonicalize(existing).unwrap_or_else(|_| existing.to_path_buf()).join(rest);
    let linked = fs::canonicalize(apps).ok().filter(|linked| linked != apps);
    // Directories above the home directory may have any name.
    let home = apps.parent().unwrap_or(apps);
    let leads_to_root = linked.is_some_and(|linked| {
        let mut own = linked.ancestors().take_while(|above| above.starts_with(home));
        own.any(document_root::is_named_so) || web.starts_with(&linked)
    });
    if resolved.starts_with(web) || leads_to_root {
        return Err(refused(
            format!(
                "`{}` is for applications and logs, and leads to `{}`, whose files clients could \
                 request",
                private.display(),
                resolved.display()
            ),
            &if apps.is_symlink() {
                format!("remove the link: rm {}", quoted(apps))
            } else {
                format!("name another directory than `{}`", web.display())
            },
        ));
    }
    Ok(())
}

/// The refusal of the link `path`, which leads to nothing.
pub(super) fn dangling(path: &Path) -> LogMessage {
    let shown = path.display();
    match links::end(path) {
        Some(target) => refused(
            format!("`{shown}` is a link to something that does not exist: `{}`", target.display()),
            &format!(
                "create it: mkdir -p {}; or remove the link: rm {}",
                quoted(&target),
                quoted(path)
            ),
        ),
        None => refused(
            format!("`{shown}` is a link that leads back to itself"),
            &format!("remove it: rm {}", quoted(path)),
        ),
    }
}
