"""The leaderboard of results: what is read of them, which of them compare, and the page."""
