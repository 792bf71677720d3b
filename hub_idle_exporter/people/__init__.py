"""What people are told and may decide: announcements, keeps, and the file that remembers both."""
