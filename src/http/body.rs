//! Frames of an answer as the body of a response, plain or compressed, one at a time.

use std::io::Write as _;

use axum::body::{Body, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;

use crate::scrape::Frames;

/// The level of compression: at level 1 a text of metrics shrinks to a tenth, at 6 to a sixteenth in thrice the time.
const LEVEL: u32 = 1;

/// A body of the frames as they are.
pub(super) fn plain(frames: Frames) -> Body {
    body(frames.map(Bytes::from))
}

/// A body of the frames in one gzip member, because several clients read no further than the first.
pub(super) fn compressed(frames: Frames) -> Body {
    body(Compressed {
        frames,
        encoder: Some(GzEncoder::new(Vec::new(), Compression::new(LEVEL))),
    })
}

fn body(frames: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    let frames = frames.filter(|frame| !frame.is_empty());
    Body::from_stream(stream::iter(frames.map(Ok::<_, std::convert::Infallible>)))
}

struct Compressed {
    frames: Frames,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl Iterator for Compressed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let encoder = self.encoder.as_mut()?;
        match self.frames.next() {
            // Writing into a vector cannot fail.
            Some(frame) => {
                let _ = encoder.write_all(&frame);
                Some(std::mem::take(encoder.get_mut()).into())
            }
            None => self.encoder.take()?.finish().ok().map(Bytes::from),
        }
    }
}
