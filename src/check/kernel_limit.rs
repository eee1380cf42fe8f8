//! How much of a script the kernel reads for its `#!` line.

/// How many bytes of a script the kernel reads, by the version from which on it does.
const KERNEL_READS: [((u32, u32), usize); 2] = [((5, 1), 256), ((0, 0), 128)];

/// How many bytes of a script the running kernel reads for its `#!` line.
pub(super) fn kernel_limit() -> usize {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    limit_of(&release)
}

fn limit_of(release: &str) -> usize {
    let mut numbers =
        release.split(|next: char| !next.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    KERNEL_READS.iter().find(|(since, _)| version >= *since).map_or(128, |(_, most)| *most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_the_line_depends_on_the_kernel() {
        for (release, most) in
            [("3.10.0-1160.el7", 128), ("5.0.21", 128), ("5.1", 256), ("6.1.0-18-amd64", 256)]
        {
            assert_eq!(limit_of(release), most, "{release}");
        }
    }
}
