"""What people say, because nothing can measure it: attestations, waivers, sign-offs."""
