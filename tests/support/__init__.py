"""What the tests share: peers, clocks, strategies, cancellation and clean-up checks."""
