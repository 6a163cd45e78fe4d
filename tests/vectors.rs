//! Published messages, byte for byte: RFC 5769 §2.1–§2.4 and RFC 8489 appendix B.1.

use hex_literal::hex;
use turnd::stun::{
    Attribute, Class, Integrity, Key, Message, Method, ParseError, PasswordAlgorithm,
    TransactionId, Writer, userhash,
};

const SHORT_TERM_ID: TransactionId = TransactionId(hex!("b7e7a701 bc34d686 fa87dfae"));
const LONG_TERM_ID: TransactionId = TransactionId(hex!("78ad3433 c6ad72c0 29da412e"));

/// Six characters of Katakana.
const MATRIX: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

/// RFC 5769 §2.1.
const REQUEST: [u8; 108] = hex!(
    "0001 0058"                  // Binding request, length
    "2112a442"                   // magic cookie
    "b7e7a701 bc34d686 fa87dfae" // transaction id
    "8022 0010"                  // SOFTWARE
    "5354554e 20746573 7420636c 69656e74"
    "0024 0004"                  // PRIORITY
    "6e0001ff"
    "8029 0008"                  // ICE-CONTROLLED
    "932ff9b1 51263b36"
    "0006 0009"                  // USERNAME, padded with blanks
    "6576746a 3a683676 59202020"
    "0008 0014"                  // MESSAGE-INTEGRITY
    "9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2"
    "8028 0004"                  // FINGERPRINT
    "e57a3bcf"
);

/// RFC 5769 §2.2.
const IPV4_RESPONSE: [u8; 80] = hex!(
    "0101 003c"                  // Binding success, length
    "2112a442"                   // magic cookie
    "b7e7a701 bc34d686 fa87dfae" // transaction id
    "8022 000b"                  // SOFTWARE, padded with a blank
    "74657374 20766563 746f7220"
    "0020 0008"                  // XOR-MAPPED-ADDRESS
    "0001a147 e112a643"
    "0008 0014"                  // MESSAGE-INTEGRITY
    "2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7"
    "8028 0004"                  // FINGERPRINT
    "c07d4c96"
);

/// RFC 5769 §2.3.
const IPV6_RESPONSE: [u8; 92] = hex!(
    "0101 0048"                  // Binding success, length
    "2112a442"                   // magic cookie
    "b7e7a701 bc34d686 fa87dfae" // transaction id
    "8022 000b"                  // SOFTWARE, padded with a blank
    "74657374 20766563 746f7220"
    "0020 0014"                  // XOR-MAPPED-ADDRESS
    "0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"
    "0008 0014"                  // MESSAGE-INTEGRITY
    "a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41"
    "8028 0004"                  // FINGERPRINT
    "c8fb0b4c"
);

/// RFC 5769 §2.4.
const LONG_TERM_REQUEST: [u8; 116] = hex!(
    "0001 0060"                  // Binding request, length
    "2112a442"                   // magic cookie
    "78ad3433 c6ad72c0 29da412e" // transaction id
    "0006 0012"                  // USERNAME
    "e3839ee3 8388e383 aae38383 e382afe3 82b90000"
    "0015 001c"                  // NONCE
    "662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341"
    "0014 000b"                  // REALM
    "6578616d 706c652e 6f726700"
    "0008 0014"                  // MESSAGE-INTEGRITY
    "f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666"
);

/// RFC 8489 B.1 as erratum 6268 corrects it.
const SHA256_REQUEST: [u8; 164] = hex!(
    "0001 0090"                  // Binding request, length
    "2112a442"                   // magic cookie
    "78ad3433 c6ad72c0 29da412e" // transaction id
    "001e 0020"                  // USERHASH
    "4a3cf38f ef6992bd a952c678 0417da0f 24819415 569e60b2 05c46e41 407f1704"
    "0015 0029"                  // NONCE
    "6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33 346f4c39 46535476 79363473"
    "41000000"
    "0014 000b"                  // REALM
    "6578616d 706c652e 6f726700"
    "001d 0004"                  // PASSWORD-ALGORITHM
    "00020000"
    "001c 0020"                  // MESSAGE-INTEGRITY-SHA256
    "b5c7bf00 5b6c52a2 1c51c5e8 92f81924 136296cb 927c4314 9309278c c6518e65"
);

/// What RFC 8489 B.1 prints instead of the corrected HMAC, and instead of the length.
const PRINTED_LENGTH: [u8; 2] = hex!("009c");
const PRINTED_HMAC: [u8; 32] =
    hex!("e4686c8f 0edeb590 13e07090 010a93ef ccbccc54 4c0a45d9 f830aa6d 6f735a01");

#[test]
fn rfc5769_2_1_request() {
    let message = Message::parse(&REQUEST).unwrap();
    assert_eq!(
        (message.method(), message.class()),
        (Method::BINDING, Class::Request)
    );
    assert_eq!(message.transaction_id(), SHORT_TERM_ID);
    assert_eq!(message.software(), Some(Ok(&b"STUN test client"[..])));
    assert_eq!(message.get(Attribute(0x0024)), Some(&hex!("6e0001ff")[..]));
    assert_eq!(
        message.get(Attribute(0x8029)),
        Some(&hex!("932ff9b1 51263b36")[..])
    );
    assert_eq!(message.username(), Some(Ok(&b"evtj:h6vY"[..])));
    assert_eq!(
        types(&message),
        [0x8022, 0x0024, 0x8029, 0x0006, 0x0008, 0x8028]
    );
    assert!(message.verify(&short_term_key()));
    assert!(message.has_fingerprint());
    // PRIORITY belongs to ICE, which this server does not speak.
    assert!(message.unknown_required().eq([Attribute(0x0024)]));
}

#[test]
fn rfc5769_2_2_ipv4_response() {
    let message = Message::parse(&IPV4_RESPONSE).unwrap();
    assert_eq!(
        (message.method(), message.class()),
        (Method::BINDING, Class::Success)
    );
    assert_eq!(message.transaction_id(), SHORT_TERM_ID);
    assert_eq!(message.software(), Some(Ok(&b"test vector"[..])));
    assert_eq!(
        message.xor_mapped_address(),
        Some(Ok("192.0.2.1:32853".parse().unwrap()))
    );
    assert_eq!(types(&message), [0x8022, 0x0020, 0x0008, 0x8028]);
    assert!(message.verify(&short_term_key()));
}

#[test]
fn rfc5769_2_3_ipv6_response() {
    let message = Message::parse(&IPV6_RESPONSE).unwrap();
    assert_eq!(
        (message.method(), message.class()),
        (Method::BINDING, Class::Success)
    );
    let address = "[2001:db8:1234:5678:11:2233:4455:6677]:32853"
        .parse()
        .unwrap();
    assert_eq!(message.xor_mapped_address(), Some(Ok(address)));
    assert_eq!(types(&message), [0x8022, 0x0020, 0x0008, 0x8028]);
    assert!(message.verify(&short_term_key()));
}

#[test]
fn rfc5769_2_4_request_with_long_term_credentials() {
    let message = Message::parse(&LONG_TERM_REQUEST).unwrap();
    assert_eq!(message.transaction_id(), LONG_TERM_ID);
    assert_eq!(message.username(), Some(Ok(MATRIX.as_bytes())));
    assert_eq!(
        message.nonce(),
        Some(Ok(&b"f//499k954d6OL34oL9FSTvy64sA"[..]))
    );
    assert_eq!(message.realm(), Some(Ok(&b"example.org"[..])));
    assert_eq!(types(&message), [0x0006, 0x0015, 0x0014, 0x0008]);
    assert!(message.verify(&long_term_key()));
    assert!(!message.verify(&Key::md5(MATRIX.as_bytes(), b"example.org", b"TheMatrix")));
}

#[test]
fn rfc8489_b_1_request_with_sha256_integrity_and_userhash() {
    let message = Message::parse(&SHA256_REQUEST).unwrap();
    assert_eq!(message.transaction_id(), LONG_TERM_ID);
    assert_eq!(
        message.userhash(),
        Some(Ok(&userhash(MATRIX.as_bytes(), b"example.org")))
    );
    assert_eq!(
        message.nonce(),
        Some(Ok(&b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"[..]))
    );
    assert_eq!(message.realm(), Some(Ok(&b"example.org"[..])));
    assert_eq!(
        message.password_algorithm(),
        Some(Ok(PasswordAlgorithm::Sha256))
    );
    assert_eq!(types(&message), [0x001E, 0x0015, 0x0014, 0x001D, 0x001C]);
    assert!(message.verify(&sha256_key()));
    assert!(!message.verify(&long_term_key()));
}

/// The RFC's length counts the header too, and its HMAC was computed so: right only for a message
/// that is none.
#[test]
fn rfc8489_b_1_as_printed_is_no_message() {
    // As printed: without PASSWORD-ALGORITHM.
    let mut printed = [
        &SHA256_REQUEST[..120],
        &SHA256_REQUEST[128..132],
        &PRINTED_HMAC,
    ]
    .concat();
    printed[2..4].copy_from_slice(&PRINTED_LENGTH);
    assert_eq!(Message::parse(&printed).unwrap_err(), ParseError::Length);

    let length = u16::try_from(printed.len() - 20).unwrap();
    printed[2..4].copy_from_slice(&length.to_be_bytes());
    assert!(!Message::parse(&printed).unwrap().verify(&sha256_key()));
}

#[test]
fn a5_the_key_vector() {
    let key = hex!("8493fbc53ba582fb4c044c456bdc40eb");
    let key = Key::from_bytes(PasswordAlgorithm::Md5, &key).unwrap();
    assert_eq!(Key::md5(b"user", b"realm", b"pass"), key);
    assert_ne!(Key::md5(b"user", b"realm", b"Pass"), key);
}

#[test]
fn the_writer_makes_the_long_term_vectors() {
    let mut written = Vec::new();
    let mut writer = Writer::new(&mut written, Class::Request, Method::BINDING, LONG_TERM_ID);
    writer
        .bytes(Attribute::USERNAME, MATRIX.as_bytes())
        .bytes(Attribute::NONCE, b"f//499k954d6OL34oL9FSTvy64sA")
        .bytes(Attribute::REALM, b"example.org");
    writer.finish_with_integrity(&long_term_key(), Integrity::Sha1);
    assert_eq!(written, LONG_TERM_REQUEST);

    written.clear();
    let mut writer = Writer::new(&mut written, Class::Request, Method::BINDING, LONG_TERM_ID);
    writer
        .bytes(
            Attribute::USERHASH,
            &userhash(MATRIX.as_bytes(), b"example.org"),
        )
        .bytes(
            Attribute::NONCE,
            b"obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA",
        )
        .bytes(Attribute::REALM, b"example.org")
        .password_algorithm(PasswordAlgorithm::Sha256);
    writer.finish_with_integrity(&sha256_key(), Integrity::Sha256);
    assert_eq!(written, SHA256_REQUEST);
}

#[test]
fn the_writer_makes_the_responses_up_to_their_integrity() {
    for (vector, address) in [
        (&IPV4_RESPONSE[..], "192.0.2.1:32853"),
        (
            &IPV6_RESPONSE[..],
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        let mut written = Vec::new();
        let mut writer = Writer::new(&mut written, Class::Success, Method::BINDING, SHORT_TERM_ID);
        writer
            .bytes(Attribute::SOFTWARE, b"test vector")
            .xor_address(Attribute::XOR_MAPPED_ADDRESS, address.parse().unwrap())
            .fingerprint();
        writer.finish_with_integrity(&short_term_key(), Integrity::Sha1);
        // The vectors pad with a blank, we with zero, and the HMAC covers the padding.
        let mut expected = vector.to_vec();
        expected[35] = 0;
        let integrity = vector.len() - 28;
        assert_eq!(written[..integrity], expected[..integrity]);
        assert_eq!(written.len(), vector.len());
    }
}

#[test]
fn any_changed_byte_of_a_vector_is_noticed() {
    for vector in [&REQUEST[..], &IPV4_RESPONSE, &IPV6_RESPONSE] {
        let fingerprint = vector.len() - 8;
        for at in 0..vector.len() {
            let mut bytes = vector.to_vec();
            bytes[at] ^= 0xFF;
            let message = Message::parse(&bytes);
            if at >= fingerprint + 4 {
                assert_eq!(message.unwrap_err(), ParseError::Fingerprint);
            } else if at < fingerprint {
                assert!(
                    !message.is_ok_and(|message| message.verify(&short_term_key())),
                    "{at}"
                );
            }
        }
    }
}

fn types(message: &Message<'_>) -> Vec<u16> {
    message.attributes().map(|(kind, _)| kind.0).collect()
}

/// RFC 5769 §2: with short-term credentials the key is the password.
fn short_term_key() -> Key {
    Key::from_bytes(PasswordAlgorithm::Md5, b"VOkJxbRl1RmTxUk/WvJxBt").expect("short")
}

fn long_term_key() -> Key {
    Key::md5(MATRIX.as_bytes(), b"example.org", b"TheMatrIX")
}

fn sha256_key() -> Key {
    Key::sha256(MATRIX.as_bytes(), b"example.org", b"TheMatrIX")
}
