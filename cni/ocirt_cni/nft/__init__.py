"""The one nftables layer of the plugins: the table `inet ocirt`, changed in transactions by libnftables."""
