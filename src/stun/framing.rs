//! In a byte stream: where does the next message end (RFC 8489 §6.2.2, RFC 8656 §12.5) \[S14\].
//!
//! STUN messages are multiples of 4 bytes long; ChannelData is padded to one, and its length field
//! does not count the padding \[C5\]. Whatever is neither ends the conversation: there is no way to
//! find the next message behind it.

use super::channel_data::{CHANNEL_HEADER_LENGTH, ChannelNumber};
use super::reader::Reader;
use super::{HEADER_LENGTH, Kind, MAGIC_COOKIE, padding};

/// What stands at the front of the bytes a stream brought so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Not yet whole: at least so many bytes in all are wanted before it is worth asking again.
    NeedMore(usize),
    /// A whole message.
    Whole {
        /// How many bytes to consume, padding included.
        frame: usize,
        /// How many of them are the message.
        message: usize,
    },
    /// Neither STUN nor ChannelData, or larger than allowed: the connection is of no more use.
    Garbage,
}

/// Finds the end of the message that begins at `bytes`. Reads at most its first 8 bytes.
pub fn next_frame(bytes: &[u8]) -> Frame {
    next_frame_within(bytes, LARGEST_FRAME)
}

/// As [`next_frame`], but a frame of more than `largest` bytes is garbage as soon as its length is
/// seen.
pub fn next_frame_within(bytes: &[u8], largest: usize) -> Frame {
    match Kind::of(bytes) {
        _ if bytes.is_empty() => Frame::NeedMore(CHANNEL_HEADER_LENGTH),
        Kind::Stun => stun_frame(bytes, largest),
        Kind::ChannelData => channel_frame(bytes, largest),
        Kind::Other => Frame::Garbage,
    }
}

fn stun_frame(bytes: &[u8], largest: usize) -> Frame {
    let mut reader = Reader::new(bytes);
    let Some([_, _, l0, l1]) = reader.array() else {
        return Frame::NeedMore(HEADER_LENGTH);
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let frame = length.saturating_add(HEADER_LENGTH);
    if padding(length) != 0 || frame > largest {
        return Frame::Garbage;
    }
    match reader.array() {
        Some(cookie) if cookie != MAGIC_COOKIE => Frame::Garbage,
        Some(_) if bytes.len() >= frame => Frame::Whole {
            frame,
            message: frame,
        },
        Some(_) | None => Frame::NeedMore(frame),
    }
}

fn channel_frame(bytes: &[u8], largest: usize) -> Frame {
    let mut reader = Reader::new(bytes);
    let (Some(number), Some(length)) = (reader.u16(), reader.u16()) else {
        return Frame::NeedMore(CHANNEL_HEADER_LENGTH);
    };
    let message = usize::from(length).saturating_add(CHANNEL_HEADER_LENGTH);
    let frame = message.saturating_add(padding(message));
    if ChannelNumber::new(number).is_none() || frame > largest {
        Frame::Garbage
    } else if bytes.len() < frame {
        Frame::NeedMore(frame)
    } else {
        Frame::Whole { frame, message }
    }
}

/// Nothing the length fields can say is larger: a STUN header and 65 532 bytes.
pub const LARGEST_FRAME: usize = 65_552;

#[cfg(test)]
mod tests {
    use super::*;

    const BINDING: [u8; 20] = [
        0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];

    /// Feeds a stream byte by byte and returns the messages found.
    fn messages(stream: &[u8]) -> Vec<Vec<u8>> {
        let (mut found, mut buffer) = (Vec::new(), Vec::new());
        for byte in stream {
            buffer.push(*byte);
            match next_frame(&buffer) {
                Frame::Whole { frame, message } => {
                    found.push(buffer[..message].to_vec());
                    buffer.drain(..frame);
                }
                Frame::NeedMore(wanted) => assert!(wanted > buffer.len()),
                Frame::Garbage => panic!("garbage after {} messages", found.len()),
            }
        }
        assert!(buffer.is_empty());
        found
    }

    #[test]
    fn s14_messages_are_found_wherever_the_stream_is_split() {
        for length in 0..=9u8 {
            let mut channel_data = vec![0x40, 0x01, 0, length];
            channel_data.resize(4 + usize::from(length), 0x5A);
            let mut padded = channel_data.clone();
            padded.resize(4 + usize::from(length).next_multiple_of(4), 0xEE);
            let stream = [&BINDING[..], &padded, &BINDING, &padded, &padded].concat();
            let expected = [
                &BINDING[..],
                &channel_data,
                &BINDING,
                &channel_data,
                &channel_data,
            ];
            assert_eq!(messages(&stream), expected, "{length}");
        }
    }

    #[test]
    fn c5_a_frame_waits_for_its_padding() {
        assert_eq!(next_frame(&[0x40, 0, 0, 1, 9]), Frame::NeedMore(8));
        assert_eq!(
            next_frame(&[0x40, 0, 0, 1, 9, 0, 0, 0, 7]),
            Frame::Whole {
                frame: 8,
                message: 5
            }
        );
    }

    #[test]
    fn c6_empty_channel_data_is_a_frame_of_its_header() {
        assert_eq!(
            next_frame(&[0x40, 0, 0, 0]),
            Frame::Whole {
                frame: 4,
                message: 4
            }
        );
    }

    #[test]
    fn garbage_is_known_at_the_first_byte() {
        for first in (4..=63).chain(128..=255) {
            assert_eq!(next_frame(&[first]), Frame::Garbage, "{first}");
        }
        for first in (0..=3).chain(64..=127) {
            assert!(
                matches!(next_frame(&[first]), Frame::NeedMore(_)),
                "{first}"
            );
        }
        assert_eq!(next_frame(&[]), Frame::NeedMore(4));
    }

    #[test]
    fn a_wrong_cookie_or_an_odd_length_is_garbage() {
        for at in 4..8 {
            let mut bytes = BINDING;
            bytes[at] ^= 1;
            assert_eq!(next_frame(&bytes), Frame::Garbage);
            assert_eq!(next_frame(&bytes[..8]), Frame::Garbage);
        }
        for length in [1, 2, 3, 5] {
            assert_eq!(next_frame(&[0, 1, 0, length]), Frame::Garbage);
        }
    }

    #[test]
    fn the_largest_frames_fit_and_a_lower_limit_holds() {
        let mut stun = BINDING.to_vec();
        stun[2..4].copy_from_slice(&65_532u16.to_be_bytes());
        assert_eq!(next_frame(&stun), Frame::NeedMore(LARGEST_FRAME));
        assert_eq!(next_frame_within(&stun, LARGEST_FRAME - 1), Frame::Garbage);
        let channel_data = [0x40, 0, 0xFF, 0xFF];
        assert_eq!(next_frame(&channel_data), Frame::NeedMore(65_540));
        assert_eq!(next_frame_within(&channel_data, 65_539), Frame::Garbage);
        assert_eq!(next_frame_within(&[0x40, 0, 0, 5], 12), Frame::NeedMore(12));
        assert_eq!(next_frame_within(&[0x40, 0, 0, 5], 11), Frame::Garbage);
    }
}
