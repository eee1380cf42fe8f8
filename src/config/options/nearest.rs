//! The name that a misspelt one was meant to be.

/// The name that `misspelt` most likely stands for.
pub(crate) fn nearest<'a>(misspelt: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let is_near = |name: &str, distance: usize| {
        let is_part =
            misspelt.len() > 2 && name.starts_with(misspelt) || misspelt.starts_with(name);
        is_part || distance <= (name.len() / 3).max(1)
    };
    names
        .map(|name| (strsim::damerau_levenshtein(misspelt, name), name))
        .filter(|(distance, name)| is_near(name, *distance))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
