//! Percent-encoding (RFC 3986 2.1).

/// Decodes every escape in `encoded`, and leaves all other bytes as they are.
pub fn decode(encoded: &[u8]) -> Vec<u8> {
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    decoded
}

/// Encodes a path, and leaves bytes that a path may contain as they are (RFC 3986 3.3).
pub fn encode_path(path: &[u8]) -> Vec<u8> {
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    let mut encoded = Vec::with_capacity(path.len());
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            encoded.push(byte);
        } else {
            encoded.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::{decode, encode_path};

    #[test]
    fn a_path_is_encoded_so_that_it_comes_back() {
        assert_eq!(encode_path(b"/a b\xc3\xa9?%2F"), b"/a%20b%C3%A9%3F%252F");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode_path(&all)), all);
    }

    #[test]
    fn escapes_are_decoded_and_nothing_else_is() {
        assert_eq!(decode(b"/a%20b%C3%a9+%2F"), b"/a b\xc3\xa9+/");
        assert_eq!(decode(b"%"), b"%");
        assert_eq!(decode(b"%4"), b"%4");
        assert_eq!(decode(b"%zz%%41"), b"%zz%A");
    }
}
