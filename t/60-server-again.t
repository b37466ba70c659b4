#!/usr/bin/perl
# Guards: a call that its recipient says it has not looked at is sent once more, and no other call ever is.
use strict;
use warnings;
use H2Raw;
use HyperMesh;
use HyperTest;
use IO::Socket::SSL;
use Test::More;
use Time::HiRes qw(time);

# hd-2 is played by this test: what it does with each connection's request is the next word of the script.
my $server = IO::Socket::SSL->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 8, ReuseAddr => 1, SSL_ca_file => certs() . '/root.crt',
	SSL_cert_file => certs() . '/hd-2.crt', SSL_key_file => certs() . '/hd-2.key', SSL_verify_mode => SSL_VERIFY_PEER, SSL_alpn_protocols => ['h2'])
    or die "listen: $SSL_ERROR";
my $m = mesh(
	directory => 'json',
	start => 0,
	hyper => { 'hd-1' => "call_timeout = 6;\n" },
	edit => sub {
		for my $r (@{ $_[0] }) {
			$r->{data}[1]{settings} = { address => 'localhost:' . $server->sockport } if $r->{name} eq 'hd-2' && $r->{section} eq 'channels';
		}
	});
$m->start_one('hd-1');

sub field { my ($n, $bytes) = @_; return chr($n << 3 | 2) . chr(length $bytes) . $bytes }

# HEADERS, one message, trailers: Response{id, result: {"who": "played"}}
sub answer {
	my ($sock, $stream) = @_;
	my $response = field(1, 'x') . field(2, field(1, field(1, 'who') . field(2, field(3, 'played'))));
	send_all($sock, headers($stream, literal(':status', '200', 'content-type', 'application/grpc')) .
		frame('DATA', 0, $stream, pack('CN', 0, length $response) . $response) .
		headers($stream, literal('grpc-status', '0', 'grpc-message', ''), end => 1));
	return;
}

# The next call on the connection: its stream, or undef when the peer closed it or it is hd-1's standing stream, which has no end.
sub next_request {
	my ($sock) = @_;
	my ($data) = grep { $_->[0] eq 'DATA' } frames_of($sock, sub { $_[0][0] eq 'DATA' }, 10);
	return $data && $data->[1] & 1 ? $data->[2] : undef;
}
my @standing;
local $SIG{PIPE} = 'IGNORE';

my %play = (
	answer => sub { answer(@_) },
	# "the last stream that I may have looked at is 0", then the end
	goaway => sub { my ($sock) = @_; send_all($sock, frame('GOAWAY', 0, 0, pack 'NN', 0, 0)); return },
	# the same with an error's code
	goaway_calm => sub { my ($sock) = @_; send_all($sock, frame('GOAWAY', 0, 0, pack 'NN', 0, 11)); return },
	# it has been looked at
	goaway_seen => sub { my ($sock, $stream) = @_; send_all($sock, frame('GOAWAY', 0, 0, pack 'NN', $stream, 0)); return },
	refuse => sub { my ($sock, $stream) = @_; send_all($sock, frame('RST_STREAM', 0, $stream, pack 'N', 7)); return },
	cancel => sub { my ($sock, $stream) = @_; send_all($sock, frame('RST_STREAM', 0, $stream, pack 'N', 8)); return },
	close => sub { return },
	# response headers say that somebody has looked
	begun => sub {
		my ($sock, $stream) = @_;
		send_all($sock, headers($stream, literal(':status', '200', 'content-type', 'application/grpc')) . frame('RST_STREAM', 0, $stream, pack 'N', 7));
		return;
	},
);

# Plays the words, one for each request; a request of the script goes over the connection that the caller chose. The requests seen.
sub play {
	my ($words) = @_;
	my ($sock, $seen) = (undef, 0);
	local $SIG{ALRM} = sub { die "the script '@$words' was not played to its end\n" };
	alarm 20 * HyperTest::slow_factor();
	for my $word (@$words) {
		my $stream = $sock && next_request($sock);
		while (!$stream) {
			$sock = $server->accept or next;
			my $preface = '';
			while (length $preface < 24) { $sock->sysread($preface, 24 - length $preface, length $preface) or last }
			send_all($sock, settings());
			$stream = next_request($sock);
			push @standing, $sock if !$stream;
		}
		$seen++;
		$play{$word}->($sock, $stream);
		$sock = $sock->close && undef if $word =~ /^(?:goaway|close)/;
	}
	alarm 0;
	return ($seen, $sock);
}

sub call_with {
	my ($words) = @_;
	my $file = tmp() . '/answer.json';
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		write_file($file, json_text($m->ping));
		POSIX::_exit(0);
	}
	my ($seen, $sock) = play($words);
	waitpid $pid, 0;
	# nobody sends a request that the script does not know of
	my $more = $sock && grep { $_->[0] eq 'HEADERS' } frames_of($sock, undef, 0.3);
	$sock->close if $sock;
	return (json_value(read_file($file)), $seen, $more || 0);
}

my @cases = (
	# what hd-2 does, who answers (or the error's reason)
	[ [qw(answer)], 'played' ],
	[ [qw(goaway answer)], 'played' ],
	[ [qw(goaway_calm answer)], 'played' ],
	[ [qw(refuse answer)], 'played' ],
	[ [qw(refuse refuse)], 'reset' ],
	[ [qw(goaway goaway)], 'reset' ],
	[ [qw(goaway refuse)], 'reset' ],
	[ [qw(goaway_seen)], 'reset' ],
	[ [qw(begun)], 'reset' ],
	[ [qw(cancel)], 'refused' ],
	[ [qw(close)], 'reset' ],
	[ [qw(answer)], 'played' ],
);
for my $case (@cases) {
	my ($words, $expected) = @$case;
	my $again = $m->{'hd-1'}->count_log(qr/ call_again /);
	my ($a, undef, $more) = call_with($words);
	is($a->{error} ? $a->{error}{data}{reason} : $a->{result}{who}, $expected, "@$words: $expected") or diag json_text($a);
	is($m->{'hd-1'}->count_log(qr/ call_again /) - $again, @$words - 1, "@$words: sent " . (@$words - 1) . ' times more');
	is($more, 0, "@$words: and not more often");
	is($a->{error} && $a->{error}{code}, $expected eq 'played' ? undef : 500, "@$words: the code");
}

my $begin = time;
my ($a) = call_with([qw(goaway answer)]);
is($a->{result}{who}, 'played', 'once more');
cmp_ok(time - $begin, '<', 3 * HyperTest::slow_factor(), 'without waiting');
hyper_done();
