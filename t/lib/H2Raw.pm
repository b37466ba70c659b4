# H2Raw - an HTTP/2 client that breaks every rule it is asked to break: TLS, frames from bytes, no library
package H2Raw;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;
use IO::Socket::SSL;
use Time::HiRes qw(time);

our @EXPORT = qw(h2_tls h2_open frame settings headers literal send_all frames_of grpc_headers);

my %type = (DATA => 0, HEADERS => 1, PRIORITY => 2, RST_STREAM => 3, SETTINGS => 4, PUSH_PROMISE => 5, PING => 6, GOAWAY => 7,
	WINDOW_UPDATE => 8, CONTINUATION => 9);
my %name = reverse %type;

# A TLS connection with hd-1's certificate to hd-2, or undef.
sub h2_tls {
	my ($port, %opt) = @_;
	local $SIG{PIPE} = 'IGNORE';
	return IO::Socket::SSL->new(PeerAddr => '127.0.0.1', PeerPort => $port, SSL_ca_file => certs() . '/root.crt',
		SSL_cert_file => certs() . '/hd-1.crt', SSL_key_file => certs() . '/hd-1.key', SSL_verifycn_name => 'hd-2',
		SSL_hostname => 'hd-2', SSL_verifycn_scheme => 'http', Timeout => 10, SSL_alpn_protocols => ['h2'], %opt);
}

sub frame {
	my ($type, $flags, $stream, $payload) = @_;
	$payload //= '';
	return substr(pack('N', length $payload), 1) . pack('CCN', $type{$type} // $type, $flags, $stream) . $payload;
}

sub settings { my $p = ''; while (my ($k, $v) = splice @_, 0, 2) { $p .= pack 'nN', $k, $v } return frame('SETTINGS', 0, 0, $p) }

sub integer {
	my ($n, $bits) = @_;
	my $max = (1 << $bits) - 1;
	return chr $n if $n < $max;
	my $out = chr $max;
	for ($n -= $max; $n > 127; $n >>= 7) { $out .= chr($n & 127 | 128) }
	return $out . chr $n;
}

# Literal header fields that are not indexed, without Huffman (RFC 7541 section 6.2.2)
sub literal { my $b = ''; while (my ($k, $v) = splice @_, 0, 2) { $b .= "\0" . integer(length $k, 7) . $k . integer(length $v, 7) . $v } return $b }

# HEADERS with END_HEADERS; options end => 1 for END_STREAM
sub headers { my ($stream, $block, %opt) = @_; return frame('HEADERS', 4 | ($opt{end} ? 1 : 0), $stream, $block) }

sub grpc_headers {
	my (%with) = (':method' => 'POST', ':scheme' => 'https', ':path' => '/Hyper/ServerCall', ':authority' => 'hd-2',
		'content-type' => 'application/grpc', te => 'trailers', @_);
	my @pseudo = grep { /^:/ } sort keys %with;
	return literal(map { $_ => $with{$_} } @pseudo, grep { !/^:/ } sort keys %with);
}

# Writes all, or stops when the peer has had enough. True when all went out.
sub send_all {
	my ($sock, $bytes) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $at = 0;
	while ($at < length $bytes) {
		my $n = $sock->syswrite($bytes, 16384, $at);
		return 0 if !$n;
		$at += $n;
	}
	return 1;
}

# The preface, our SETTINGS, and what else is given.
sub h2_open {
	my ($port, @more) = @_;
	my $sock = h2_tls($port) or return undef;
	send_all($sock, join '', "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings(), @more);
	return $sock;
}

# Frames until the peer closes or `enough` says so: list of [type, flags, stream, payload]; the last one is ['EOF'] at the end.
sub frames_of {
	my ($sock, $enough, $seconds) = @_;
	my ($buf, $end, @f) = ('', time + ($seconds // 10) * slow_factor());
	$sock->blocking(0);
	while (time < $end) {
		my $n = $sock->sysread($buf, 65536, length $buf);
		if (defined $n ? $n == 0 : $SSL_ERROR != SSL_WANT_READ && $SSL_ERROR != SSL_WANT_WRITE) { push @f, ['EOF']; last }
		while (length $buf >= 9) {
			my ($len, $t, $flags, $stream) = (unpack('N', "\0" . substr $buf, 0, 3), unpack 'x3CCN', $buf);
			last if length $buf < 9 + $len;
			push @f, [ $name{$t} // $t, $flags, $stream, substr $buf, 9, $len ];
			substr $buf, 0, 9 + $len, '';
		}
		last if $enough && grep { $enough->($_, \@f) } @f;
		if (!defined $n) { my $r = ''; vec($r, fileno $sock, 1) = 1; select $r, undef, undef, 0.1 }
	}
	$sock->blocking(1);
	return @f;
}

1;
