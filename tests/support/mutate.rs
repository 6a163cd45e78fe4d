//! Bytes that no honest client sends.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _};

/// One of the models with a few of its bytes changed, cut or added; or, as often as `noise` says, random bytes.
#[allow(unreachable_pub, reason = "each user has it in another place")]
pub fn mutated(random: &mut StdRng, models: &[Vec<u8>], noise: f64) -> Vec<u8> {
    if random.random_bool(noise) {
        let mut bytes = vec![0; random.random_range(0..1500)];
        random.fill_bytes(&mut bytes);
        return bytes;
    }
    let mut bytes = models[random.random_range(0..models.len())].clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    match random.random_range(0..4) {
        0 => bytes.truncate(random.random_range(0..=bytes.len())),
        1 => bytes.extend((0..random.random_range(0..64)).map(|_| 0xA5)),
        _ => {}
    }
    bytes
}
