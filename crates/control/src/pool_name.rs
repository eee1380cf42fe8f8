//! Names of pools. A name is part of a socket's file name and is shown to people.

/// Maximum length of a name in bytes.
const MAX_NAME_BYTES: usize = 40;

/// Checks that `name` is a valid pool name.
///
/// # Errors
/// If `name` is empty, too long, or has other characters than letters, digits, `-` and `_`.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !is_plain {
        return Err(format!(
            "a pool name has 1 to {MAX_NAME_BYTES} letters, digits, `-` and `_`, such as `shop`"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_at_most_40_letters_digits_hyphens_and_underscores() {
        for good in ["a", "my-app_2", &"x".repeat(40)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "a/b", "..", "a b", "\u{e9}", &"x".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
