"""The page inside the Hub: people sign in through the Hub, see their servers, and keep them."""
