"""What a submission may be, and the job that it makes."""
