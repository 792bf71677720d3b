"""What runs in the processes of the Hub and of people's servers."""
